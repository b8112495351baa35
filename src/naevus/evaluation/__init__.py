"""Numbers from arrays and tables."""
