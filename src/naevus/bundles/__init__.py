"""The one form in which a model leaves training."""
