"""Pose-guided video generation with a temporal ControlNet and Likelihood Score Alignment (LISA)."""
