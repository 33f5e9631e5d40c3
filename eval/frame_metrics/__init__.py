"""Metrics of generated frames against the true frames of the same clip, one module a kind."""
