"""`fedray serve`: prompts over HTTP, answered by the models of runs."""
