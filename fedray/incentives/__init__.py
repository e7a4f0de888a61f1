"""Incentives: who takes part, and what each is paid for it."""
