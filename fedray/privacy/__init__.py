"""Differential privacy: mechanisms, which are hooks, and what they cost in epsilon."""
