"""What a round costs: links, devices, and the clock that times a schedule on them."""
