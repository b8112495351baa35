"""A bundle over pictures."""
