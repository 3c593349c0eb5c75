"""Runs deployed models without torch: numpy in, numpy out."""
