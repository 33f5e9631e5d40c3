"""The samples of a race, scored by what needs more than a keypoint network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.convergence.samples import score_samples
from eval.runs.evaluation import Measures
from lisa_video.data.batch import Clip
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import Keypoints


def test_fvd_of_samples_is_that_of_i3d(tmp_path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 9, 3, 16, 16), dtype=np.uint8)
    names = [f"clip-{number}" for number in range(3)]
    nobody = Keypoints(np.zeros((9, 1, 17, 2), np.float32), np.zeros((9, 1, 17), np.float32), np.zeros(1, np.int64))
    clips = [
        Clip(name, 0, torch.from_numpy(video), torch.zeros(9, 3, 16, 16, dtype=torch.uint8), nobody, 8.0, ())
        for name, video in zip(names, frames, strict=True)
    ]
    true = frames.transpose(0, 1, 3, 4, 2)
    folders = {}
    for arm, videos, step in (("floor", true // 2, 0), ("same", true, 7)):
        (tmp_path / arm).mkdir()
        np.savez(tmp_path / arm / "videos.npz", videos=videos[::-1], ids=names[::-1], step=step)
        folders[arm] = [tmp_path / arm]
    found = score_samples(folders, 7, clips, Measures((), ("i3d",)), 0.1)
    arms = found["measures"]["FVD"]["arms"]
    assert arms["same"][0]["value"] == pytest.approx(0, abs=1e-6) and arms["floor"][0]["value"] > 1
    with pytest.raises(UserError, match="no sample of 1 held-out clips: other"):
        score_samples(folders, 7, [replace(clips[0], clip_id="other"), *clips[1:]], Measures((), ("i3d",)), 0.1)
    with pytest.raises(UserError, match="frames"):
        score_samples(
            folders, 7, [replace(clip, frames=clip.frames[:8]) for clip in clips], Measures((), ("i3d",)), 0.1
        )
