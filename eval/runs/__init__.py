"""One run on the held-out clips: its samples, its held-out loss, its scores; jobs side by side and resumed."""
