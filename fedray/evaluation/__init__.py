"""What generated images are held against: judges of garments, and measures of style."""
