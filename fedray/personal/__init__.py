"""What clients do in their local updates for models of their own."""
