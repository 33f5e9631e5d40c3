"""Stable Video Diffusion behind the backbone seam: the only door to diffusers and transformers."""
