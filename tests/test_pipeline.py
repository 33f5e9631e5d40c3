"""Sampling: what decides a clip's bits, what guidance asks the network, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lisa_video.data.batch import ClipBatch, SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest
from lisa_video.errors import UserError
from lisa_video.models.build import build_denoiser
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.models.weights import conditioning_contract, save_weights
from lisa_video.pipeline import PoseVideoPipeline

NO_BRANCH = ("sampling.unconditional_pose=none",)
GUIDED = ("sampling.guidance_first=1.0", "sampling.guidance_last=3.0")


@pytest.fixture
def trained(tiny_config, tiny_parts) -> ControlledDenoiser:
    """Backbone, branch and LISA decoder, with noise in the branch as if it had been trained."""
    model = build_denoiser(tiny_config(), tiny_parts)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def run_dir(tiny_config, tiny_config_file, tiny_parts, trained) -> Path:
    """A run folder with exported weights."""
    config = tiny_config()
    folder = Path(config.run_dir)
    folder.mkdir()
    (folder / "config.yaml").write_bytes(tiny_config_file.read_bytes())
    save_weights(folder / "weights", trained.branch, conditioning_contract(config, tiny_parts), {"step": 0})
    return folder


@pytest.fixture(scope="module")
def clips(tiny_manifest) -> ClipBatch:
    """Three held-out clips of 4 frames."""
    manifest = Manifest(tiny_manifest, "val")
    dataset = PoseClipDataset(manifest, num_frames=4, frame_stride=1, size=(32, 32), random_start=False)
    return collate([dataset[SampleKey(index, index)] for index in range(3)])


def sample(pipeline: PoseVideoPipeline, clips: ClipBatch, chosen=slice(0, 1), **changes) -> torch.Tensor:
    """Sample some of the clips; their names are the keys."""
    settings = {"seed": 0, "keys": clips.clip_ids[chosen]} | changes
    return pipeline(clips.reference[chosen], clips.pose_maps[chosen], clips.fps[chosen], **settings)


def test_seed_and_key_decide_the_bits(run_dir, clips):
    pipeline = PoseVideoPipeline.from_run(run_dir)
    video = sample(pipeline, clips)
    assert video.shape == (1, 4, 32, 32, 3) and video.dtype == torch.uint8
    assert torch.equal(sample(pipeline, clips), video)
    assert torch.equal(sample(PoseVideoPipeline.from_run(run_dir), clips), video)
    assert not torch.equal(sample(pipeline, clips, seed=1), video)
    assert not torch.equal(sample(pipeline, clips, keys=["other"]), video)


def test_a_clip_does_not_depend_on_its_batch(run_dir, clips):
    pipeline = PoseVideoPipeline.from_run(run_dir, overrides=GUIDED)
    together = sample(pipeline, clips, slice(0, 3))
    for index in range(3):
        alone = sample(pipeline, clips, slice(index, index + 1))
        # The mathematics is the same; matrix products of another size may round otherwise, by one grey level.
        assert (alone[0].int() - together[index].int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 10


def test_the_pose_reaches_the_video(run_dir, clips):
    pipeline = PoseVideoPipeline.from_run(run_dir)
    one = sample(pipeline, clips)
    other_pose = pipeline(clips.reference[:1], clips.pose_maps[1:2], clips.fps[:1], seed=0, keys=clips.clip_ids[:1])
    no_pose = pipeline(clips.reference[:1], None, clips.fps[:1], seed=0, keys=clips.clip_ids[:1])
    assert no_pose.shape == one.shape
    assert not torch.equal(one, other_pose) and not torch.equal(one, no_pose)


def test_the_decoder_has_no_say(run_dir, clips, trained):
    pipeline = PoseVideoPipeline.from_run(run_dir)
    without = pipeline.denoiser
    assert without.decoder is None
    expected = sample(pipeline, clips)
    pipeline.denoiser = ControlledDenoiser(without.backbone, without.branch, trained.decoder, "down_5")
    assert pipeline.denoiser.decoder is not None
    assert torch.equal(sample(pipeline, clips), expected)


def test_previews_during_training_show_what_the_exported_weights_give(run_dir, clips, trained, tiny_config, tiny_parts):
    preview = PoseVideoPipeline.untrained(tiny_config(), tiny_parts, trained.branch.train())
    video = sample(preview, clips)
    preview.denoiser = trained  # backbone, branch and decoder, as the engine holds them
    assert torch.equal(sample(preview, clips), video)
    # Weights out of a file lie elsewhere in memory, and matrix products round by that: one grey level.
    exported = sample(PoseVideoPipeline.from_run(run_dir), clips)
    assert (exported.int() - video.int()).abs().max() <= 1


def asked(pipeline: PoseVideoPipeline) -> list[tuple]:
    """The arguments of each call of the denoiser, from now on."""
    calls: list[tuple] = []
    pipeline.denoiser.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    return calls


def test_guidance_of_one_makes_one_pass_a_step(run_dir, clips):
    pipeline = PoseVideoPipeline.from_run(run_dir, overrides=["sampling.num_steps=3"])
    calls, steps = asked(pipeline), []
    sample(pipeline, clips, on_step=steps.append)
    assert len(calls) == 3 and steps == [1, 2, 3]
    assert all(torch.equal(pose, clips.pose_maps[:1]) for *_, pose in calls)


@pytest.mark.parametrize("unconditional_pose", ["driving", "blank", "none"])
def test_what_the_unconditional_half_is_told(run_dir, clips, unconditional_pose):
    overrides = [*GUIDED, f"sampling.unconditional_pose={unconditional_pose}"]
    pipeline = PoseVideoPipeline.from_run(run_dir, overrides=overrides)
    calls = asked(pipeline)
    sample(pipeline, clips)
    assert len(calls) == 2 * 2
    for told, untold in zip(calls[::2], calls[1::2], strict=True):
        assert torch.equal(told[0], untold[0]) and torch.equal(told[1], untold[1])  # the same latents and level
        assert told[2].image_latents.any() and told[2].image_embedding.any()
        assert not untold[2].image_latents.any() and not untold[2].image_embedding.any()
        assert torch.equal(told[2].time_ids, untold[2].time_ids)
        assert torch.equal(told[3], clips.pose_maps[:1])
        seen = {"driving": clips.pose_maps[:1], "blank": torch.zeros_like(clips.pose_maps[:1])}
        if unconditional_pose == "none":
            assert untold[3] is None
        else:
            assert torch.equal(untold[3], seen[unconditional_pose])


def test_the_two_guidance_paths_differ(run_dir, clips):
    driving = PoseVideoPipeline.from_run(run_dir, overrides=GUIDED)
    blank = PoseVideoPipeline.from_run(run_dir, overrides=[*GUIDED, "sampling.unconditional_pose=blank"])
    assert not torch.equal(sample(driving, clips), sample(blank, clips))


def one_step(run_dir: Path, clips: ClipBatch, *overrides: str) -> torch.Tensor:
    """The estimate of the clean latents after a single step, before the codec."""
    once = ("sampling.num_steps=1", "sampling.sigma_max=10")
    pipeline = PoseVideoPipeline.from_run(run_dir, overrides=[*once, *overrides])
    seen: list[torch.Tensor] = []
    decode = pipeline.codec.decode_video
    pipeline.codec.decode_video = lambda latents: decode(seen.append(latents) or latents)
    sample(pipeline, clips)
    return seen[0]


def test_pose_guidance_scales_what_the_branch_changes(run_dir, clips):
    controlled = one_step(run_dir, clips)
    frozen = one_step(run_dir, clips, "sampling.pose_guidance=0")
    pipeline = PoseVideoPipeline.from_run(run_dir, overrides=["sampling.num_steps=1"])
    alone = pipeline(clips.reference[:1], None, clips.fps[:1], seed=0, keys=clips.clip_ids[:1], num_frames=4)
    video = PoseVideoPipeline.from_run(run_dir, overrides=["sampling.num_steps=1", "sampling.pose_guidance=0"])
    assert torch.equal(sample(video, clips), alone)
    twice = one_step(run_dir, clips, "sampling.pose_guidance=2")
    assert (controlled - frozen).abs().max() > 1e-3
    torch.testing.assert_close(twice, 2 * controlled - frozen, rtol=1e-4, atol=1e-4)
    guided = one_step(run_dir, clips, "sampling.pose_guidance=2", "sampling.guidance_first=2", *NO_BRANCH)
    once = one_step(run_dir, clips, "sampling.guidance_first=2", *NO_BRANCH)
    torch.testing.assert_close(guided[:, 0] - once[:, 0], 2 * (twice - controlled)[:, 0], rtol=1e-3, atol=1e-3)


def test_pose_guidance_can_be_kept_to_a_range_of_noise_levels(run_dir, clips):
    within, beyond = ("sampling.pose_guidance_range=[10,20]", "sampling.pose_guidance_range=[20,30]")
    scaled = one_step(run_dir, clips, "sampling.pose_guidance=2")  # its one step is at a level of 10
    assert torch.equal(one_step(run_dir, clips, "sampling.pose_guidance=2", within), scaled)
    plain = one_step(run_dir, clips, "sampling.pose_guidance=2", beyond)
    assert torch.equal(plain, one_step(run_dir, clips)) and not torch.equal(plain, scaled)
    with pytest.raises(UserError, match="low < high"):
        PoseVideoPipeline.from_run(run_dir, overrides=["sampling.pose_guidance_range=[3,2]"])


def test_another_backbone_is_refused(run_dir):
    path = run_dir / "weights/contract.json"
    contract = json.loads(path.read_text(encoding="utf-8"))
    contract["backbone"]["latent_scaling_factor"] = 0.5
    path.write_text(json.dumps(contract), encoding="utf-8")
    message = r"weights: trained with latent_scaling_factor = 0.5, but the backbone in use has .*Remedy: sample with"
    with pytest.raises(UserError, match=message):
        PoseVideoPipeline.from_run(run_dir)


def test_what_is_no_run_is_refused(tmp_path, run_dir):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: not a run: no config.yaml. Remedy"):
        PoseVideoPipeline.from_run(tmp_path / "empty")
    (run_dir / "weights").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"weights: no trained weights. Remedy"):
        PoseVideoPipeline.from_run(run_dir)


def test_unusual_sizes_are_remarked_on(run_dir, clips, caplog):
    pipeline = PoseVideoPipeline.from_run(run_dir)
    sample(pipeline, clips)
    assert not caplog.records
    pipeline(clips.reference[:1], clips.pose_maps[:1, :3], clips.fps[:1], seed=0, keys=["a"])
    assert "sampling 3 frames of (32, 32) px; trained on 4 frames" in caplog.text


def test_sampling_needs_no_deepspeed_and_no_training_room(run_dir):
    program = (
        "import sys, torch; from lisa_video.pipeline import PoseVideoPipeline as P; "
        f"p = P.from_run({str(run_dir)!r}, overrides=['sampling.num_steps=1']); "
        "p(torch.zeros(1, 3, 32, 32), torch.zeros(1, 4, 3, 32, 32), torch.ones(1), seed=0, keys=[0]); "
        "print([m for m in sys.modules if m.split('.')[0] == 'deepspeed' or m.startswith('lisa_video.training')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
