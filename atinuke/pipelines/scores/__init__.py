"""Figures from answers and what would have been right: numpy and words, no model."""
