"""What a client trains: models, their losses and their samples. No federation in here."""
