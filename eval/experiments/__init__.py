"""Several runs side by side: comparisons, checkpoints, sweeps, benchmarks."""
