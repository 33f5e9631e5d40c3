"""Settings: one typed, strict tree, read from YAML and dotted overrides."""
