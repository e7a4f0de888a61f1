"""What trains and travels: a tuning marks parameters of a learner, names them as their file will, and exports
them."""
