"""Skeletons, pose maps, keypoint detection and pose accuracy."""
