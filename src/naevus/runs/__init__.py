"""What jobs leave on disk: recipes, runs, predictions and what is known of them."""
