"""Training networks: the only room with torch in it."""
