"""The clips whose I3D logits were computed by the original JAX model, in whole numbers, so that they are exact."""

import numpy as np

LENGTHS = (16, 25)


def reference_clips(frames: int) -> np.ndarray:
    """Noise, and ramps that move at a different speed in each colour: (2, F, 224, 224, 3) uint8."""
    noise = np.random.default_rng(frames).integers(0, 256, (frames, 224, 224, 3), dtype=np.uint8)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(224), np.arange(224), indexing="ij")
    ramps = [abs((3 * x + (2 + color) * y + (17 + 9 * color) * t) % 510 - 255) for color in range(3)]
    return np.stack([noise, np.stack(ramps, axis=-1).astype(np.uint8)])
