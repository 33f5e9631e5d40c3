"""What a run will need before it starts: parameters, memory a GPU, operations a step. Nothing is allocated."""
