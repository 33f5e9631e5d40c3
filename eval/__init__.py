"""Evaluation of generated videos (kept free of code: `eval` is a common name)."""
