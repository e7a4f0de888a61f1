"""Attackers: what they train on, what they send, and whether it works. Which clients attack is the scenario's
(`adversary`)."""
