"""The embedded demo data set: rendered clips of a walking, running and dancing figure with exact keypoints."""
