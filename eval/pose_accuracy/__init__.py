"""Pose accuracy of videos: joints found again, and how near they are to where they were asked to be."""
