"""Trained folds become one bundle: graphs, their precision, averages, and the check of it all."""
