"""AIGC as a service: environments of requests and providers, in which an agent chooses who serves whom."""
