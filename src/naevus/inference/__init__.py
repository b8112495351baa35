"""Predict images with the networks of bundles."""
