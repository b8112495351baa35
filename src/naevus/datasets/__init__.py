"""Data sets: tables of images, their files, folds, audits and synthetic ones."""
