"""Noise processes and samplers. Pure: imports no other room."""
