"""Networks that turn clips into feature vectors."""
