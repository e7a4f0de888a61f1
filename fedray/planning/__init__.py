"""What is known before anything is done: a round's clients and schedule, the work, the cuts, the places."""
