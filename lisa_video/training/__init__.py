"""The training loop under DeepSpeed: engine, checkpoints, metrics, previews."""
