"""The run folder: what is written while a run goes on, and what resume reads."""
