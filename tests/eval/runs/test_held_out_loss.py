"""The held-out loss: against a computation by hand, paired over arms, and kept."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from eval.runs.generate import GenerationJob, held_out_clips, load_pipeline
from eval.runs.held_out_loss import HeldOutLoss, held_out_loss, pose_gap_difference
from lisa_video.data.batch import collate
from lisa_video.held_out_loss import denoising_errors
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.randomness import normal


def test_it_is_the_error_of_the_prediction(tiny_run, tiny_parts):
    """By the formulas of the method: F-space target (n - s x0) / sqrt(1 + s^2), levels exp(0.7 + 1.6 z)."""
    job = GenerationJob(str(tiny_run), 3)
    found = held_out_loss(job)
    z = {0: -1.2815515655446004, 2: 0.0, 4: 1.2815515655446004}  # of the quantiles 0.1, 0.5 and 0.9
    assert found.array.shape == (3, 5)
    clips = list(held_out_clips(job.config, 100))
    half, batch = (len(clips) + 1) // 2, collate(clips[:3])
    misleading = collate([clips[(place + half) % len(clips)] for place in range(3)]).pose_maps
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
        for rows, poses in ((found.losses, batch.pose_maps), (found.misled, misleading), (found.frozen, None)):
            with torch.no_grad():
                predicted = denoiser(x0 + s * n, torch.full((3,), s), condition, poses).controlled
            error = (predicted - (n - s * x0) / np.sqrt(1 + s * s)).square().mean(dim=(1, 2, 3, 4))
            assert np.array(rows)[:, place] == pytest.approx(error.numpy(), rel=1e-4)


def test_the_pose_gap_is_what_the_right_poses_are_worth_over_the_frozen_loss():
    rows = ((1.0, 3.0), (2.0, 2.0))
    misled, frozen = ((2.0, 3.0), (2.0, 3.0)), ((4.0, 4.0), (6.0, 6.0))
    found = HeldOutLoss({}, (0.5, 2.0), ("a", "b"), rows, misled, frozen)
    assert found.gaps.tolist() == [0.5, 0.5] and found.frozen_means.tolist() == [4, 6]
    assert found.pose_gap.value == pytest.approx(1 / 10)
    assert found.pose_gap.low == pytest.approx(1 / 12) and found.pose_gap.high == pytest.approx(1 / 8)
    other = replace(found, misled=((2.0, 3.0), (2.0, 2.0)))  # blind to the pose of the second clip
    less = pose_gap_difference(found, other)
    assert less.value == pytest.approx(-0.5 / 10) and (less.low, less.high) == pytest.approx((-0.5 / 6, 0))
    assert HeldOutLoss.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_arms_are_paired_and_the_floor_is_the_frozen_network(tiny_runs):
    baseline, lisa = (GenerationJob(str(tiny_runs / arm), 2) for arm in ("baseline", "lisa"))
    floors = [held_out_loss(replace(job, source="uncontrolled")) for job in (baseline, lisa)]
    assert floors[0] == floors[1]
    trained = held_out_loss(lisa)
    assert trained.protocol_id == floors[0].protocol_id and trained.losses != floors[0].losses
    assert trained.frozen == floors[0].losses and floors[0].pose_gap.value == 0 != trained.pose_gap.value


def test_it_is_kept_and_read_again(tiny_run, monkeypatch):
    job = GenerationJob(str(tiny_run), 2)
    found = held_out_loss(job)
    monkeypatch.setattr(PoseVideoPipeline, "from_run", lambda *_, **__: pytest.fail("loaded"))
    assert held_out_loss(job) == found
    path = next(job.folder.glob("held-out-loss-2.json"))
    kept = json.loads(path.read_text())
    assert kept["clip_ids"] == list(found.clip_ids)
    with pytest.raises(ValueError, match="no denoising network"):
        held_out_loss(replace(job, source="codec"))
    del kept["misled"], kept["frozen"], kept["protocol"]["pose_gap"]  # as an earlier version wrote it
    path.write_text(json.dumps(kept))
    monkeypatch.undo()
    assert held_out_loss(job) == found


def test_the_frozen_network_is_measured_once_a_run(tiny_run, monkeypatch):
    job = GenerationJob(str(tiny_run), 2)
    found = held_out_loss(job)
    next(job.folder.glob("held-out-loss-2.json")).unlink()  # as if it were another checkpoint's turn

    def errors(model, x0, noise, sigma, condition, poses):
        assert poses is not None, "the frozen network again"
        return denoising_errors(model, x0, noise, sigma, condition, poses)

    monkeypatch.setattr("eval.runs.held_out_loss.denoising_errors", errors)
    assert held_out_loss(job) == found
