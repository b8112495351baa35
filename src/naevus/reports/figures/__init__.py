"""Figures that a paper could use, one a module; each also suits a light and a dark page."""
