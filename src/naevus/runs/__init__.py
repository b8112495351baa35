"""What jobs leave on disk: recipes, runs, predictions."""
