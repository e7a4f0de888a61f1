"""A finished run for a model hub: its weights, and a card that says how they were made and nothing of whose
data."""
