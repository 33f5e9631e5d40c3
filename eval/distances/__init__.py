"""Distances between sets of clips: features, Frechet and kernel distance, FVD."""
