"""Federated training and fine-tuning of generative models on Ray, over simulated wireless networks."""

__version__ = "0.1.0"
