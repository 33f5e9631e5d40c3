"""Sampling without a pose is diffusers' own SVD pipeline, number by number; with one, every input is heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from lisa_video.config.schema import SamplingConfig
from lisa_video.models.build import build_branch
from lisa_video.models.weights import conditioning_contract
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.randomness import generator, normal

FRAMES = 4


@pytest.fixture
def branch(tiny_config, tiny_parts):
    """With opened zero convolutions, so that the pose has an effect."""
    branch = build_branch(tiny_config(), tiny_parts)
    torch.manual_seed(1)
    for conv in [*branch.zero_convs, branch.zero_conv_mid]:
        conv.reset_parameters()
    return branch


@pytest.fixture
def make_pipeline(tiny_config, tiny_parts, branch):
    def make(**sampling) -> PoseVideoPipeline:
        contract = conditioning_contract(tiny_config(), tiny_parts)
        settings = {"num_steps": 2, "guidance_first": 1.0, "guidance_last": 1.0} | sampling
        return PoseVideoPipeline(tiny_parts, branch, contract, SamplingConfig(**settings))

    return make


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1


def inputs(batch: int) -> dict:
    g = torch.Generator().manual_seed(0)
    return {
        "reference": torch.rand(batch, 3, 32, 32, generator=g) * 2 - 1,
        "pose_maps": torch.rand(batch, FRAMES, 3, 32, 32, generator=g),
        "fps": torch.full((batch,), 7.0),
    }


@pytest.mark.parametrize(("first", "last"), [(1.0, 3.0), (2.0, 2.0), (1.0, 1.0)], ids=["ramp", "constant", "none"])
def test_sample_without_pose_is_that_of_the_stock_pipeline(tiny_checkpoint, make_pipeline, monkeypatch, first, last):
    seed, key, steps = 3, "clip-1", 4
    pipeline = make_pipeline(num_steps=steps, guidance_first=first, guidance_last=last)
    latents, decode = [], pipeline.codec.decode_video
    monkeypatch.setattr(pipeline.codec, "decode_video", lambda x: latents.append(x) or decode(x))
    ours = pipeline(as_tensor(picture()), None, torch.tensor([7.0]), seed=seed, keys=[key], num_frames=FRAMES)

    stock = StableVideoDiffusionPipeline.from_pretrained(tiny_checkpoint)
    stock.set_progress_bar_config(disable=True)

    def call(output_type: str):
        return stock(
            picture(),
            height=32,
            width=32,
            num_frames=FRAMES,
            num_inference_steps=steps,
            min_guidance_scale=first,
            max_guidance_scale=last,
            fps=7,
            motion_bucket_id=127,
            noise_aug_strength=0.02,
            latents=normal((FRAMES, 4, 8, 8), seed, [key], "sampling"),
            generator=generator(seed, key, "sampling reference"),
            output_type=output_type,
        ).frames

    # float32 numbers near the first noise level, 700, are 6e-5 apart.
    torch.testing.assert_close(latents[0], call("latent"), rtol=0, atol=2e-4)
    pixels = torch.from_numpy(np.stack([np.array(frame) for frame in call("pil")[0]]))
    assert (ours[0].int() - pixels.int()).abs().max() <= 1


def test_pose_reference_and_frame_rate_are_heard(make_pipeline):
    pipeline, given = make_pipeline(), inputs(1)
    base = pipeline(**given, seed=0, keys=["a"])
    for name, other in (
        ("pose_maps", given["pose_maps"].flip(1)),
        ("reference", -given["reference"]),
        ("fps", torch.tensor([30.0])),
    ):
        assert not torch.equal(pipeline(**given | {name: other}, seed=0, keys=["a"]), base), name


def test_guidance_of_one_over_all_frames_equals_no_guidance(make_pipeline):
    plain = make_pipeline()
    guided = make_pipeline(guidance_first=1.0, guidance_last=1.0 + 1e-6)
    a, b = (pipeline(**inputs(1), seed=0, keys=["a"]) for pipeline in (plain, guided))
    assert (a.int() - b.int()).abs().max() <= 1


def test_progress_is_told(make_pipeline):
    finished = []
    make_pipeline(num_steps=3)(**inputs(1), seed=0, keys=["a"], on_step=finished.append)
    assert finished == [1, 2, 3]
