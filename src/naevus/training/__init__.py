"""Train the networks of recipes; only this package and export use torch."""
