"""How far probabilities are what they say, and what makes them so."""
