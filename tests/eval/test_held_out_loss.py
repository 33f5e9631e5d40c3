"""The held-out loss: against a computation by hand, paired over arms, and kept."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.generate import GenerationJob, held_out_clips, load_pipeline
from eval.held_out_loss import held_out_loss
from lisa_video.data.batch import collate
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.randomness import normal


def test_it_is_the_error_of_the_prediction(tiny_run, tiny_parts):
    """By the formulas of the method: F-space target (n - s x0) / sqrt(1 + s^2), levels exp(0.7 + 1.6 z)."""
    job = GenerationJob(str(tiny_run), 3)
    found = held_out_loss(job)
    z = {0: -1.2815515655446004, 2: 0.0, 4: 1.2815515655446004}  # of the quantiles 0.1, 0.5 and 0.9
    assert found.array.shape == (3, 5)
    batch = collate(list(held_out_clips(job.config, 3)))
    denoiser, codec = load_pipeline(job).denoiser, tiny_parts.codec
    noise = normal(batch.reference.shape[1:], 0, batch.clip_ids, "held-out reference")
    condition = codec.encode_reference(
        batch.reference, noise, batch.fps, noise_aug_strength=0.02, motion_bucket_id=127.0
    )
    x0 = codec.encode_video(batch.frames)
    for place, value in z.items():
        s = float(np.exp(0.7 + 1.6 * value))
        assert found.sigmas[place] == pytest.approx(s, rel=1e-5)
        n = normal(x0.shape[1:], 0, batch.clip_ids, f"held-out noise {place}")
        with torch.no_grad():
            predicted = denoiser(x0 + s * n, torch.full((3,), s), condition, batch.pose_maps).controlled
        error = (predicted - (n - s * x0) / np.sqrt(1 + s * s)).square().mean(dim=(1, 2, 3, 4))
        assert found.array[:, place] == pytest.approx(error.numpy(), rel=1e-4)


def test_arms_are_paired_and_the_floor_is_the_frozen_network(tiny_runs):
    baseline, lisa = (GenerationJob(str(tiny_runs / arm), 2) for arm in ("baseline", "lisa"))
    floors = [held_out_loss(replace(job, source="uncontrolled")) for job in (baseline, lisa)]
    assert floors[0] == floors[1]
    trained = held_out_loss(lisa)
    assert trained.protocol_id == floors[0].protocol_id and trained.losses != floors[0].losses


def test_it_is_kept_and_read_again(tiny_run, monkeypatch):
    job = GenerationJob(str(tiny_run), 2)
    found = held_out_loss(job)
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_, **__: pytest.fail("loaded"))
    assert held_out_loss(job) == found
    path = next(job.folder.glob("held-out-loss-2.json"))
    assert json.loads(path.read_text())["clip_ids"] == list(found.clip_ids)
    with pytest.raises(ValueError, match="no denoising network"):
        held_out_loss(replace(job, source="codec"))
