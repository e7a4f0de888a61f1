"""What travels: one flat buffer with its layout, and what is done to an update before it is sent."""
