"""Recipes to runs; torch lives here and in export."""
