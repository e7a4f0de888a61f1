"""How updates are combined: an exact sum, and the rules that say what is added and what the server makes of
it."""
