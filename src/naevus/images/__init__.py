"""Pixels without learning: reading, geometry, masks, crops, colour."""
