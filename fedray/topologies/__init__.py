"""Who sends what to whom: one short function a figure, which writes down one round."""
