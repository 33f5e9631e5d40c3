"""Who does the work of a data build: processes of this machine, or a Ray cluster."""
