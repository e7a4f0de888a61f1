"""How updates are combined: monoids (zero, add, merge, finish) over flat buffers."""
