"""Predictions on their way to the score: written image by image, read from other files, counted."""
