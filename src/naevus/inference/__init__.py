"""A bundle over images."""
