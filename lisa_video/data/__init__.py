"""From the manifest to batches of clips: decoding, geometry, sampling order."""
