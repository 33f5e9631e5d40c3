"""Detectors behind the face of `lisa_video.pose.detector`, one module each; they are imported when they are used."""
