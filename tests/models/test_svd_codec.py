"""The codec is the stock SVD pipeline's: same image embedding, same image latents, clips independent of each other."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline
from PIL import Image

from lisa_video.models.svd.codec import SVDCodec
from lisa_video.models.svd.tiny import tiny_image_encoder, tiny_unet, tiny_vae

SCALE = 0.18215


@pytest.fixture(scope="module")
def modules():
    """VAE with SVD's own scaling factor, so that a forgotten or doubled factor shows."""
    torch.manual_seed(0)
    vae = tiny_vae((32, 32, 32))
    vae.register_to_config(scaling_factor=SCALE)
    return vae, *tiny_image_encoder()


@pytest.fixture(scope="module")
def codec(modules) -> SVDCodec:
    return SVDCodec(*modules)


@pytest.fixture(scope="module")
def stock(modules, codec) -> StableVideoDiffusionPipeline:
    vae, image_encoder, feature_extractor = modules
    return StableVideoDiffusionPipeline(
        vae, image_encoder, tiny_unet((32, 32, 32, 32)), EulerDiscreteScheduler(), feature_extractor
    )


@pytest.fixture(scope="module", params=[(32, 32), (32, 48), (300, 260)], ids=["square", "wide", "larger than CLIP's"])
def picture(request) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*request.param, 3), dtype=np.uint8))


def as_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1


def reference(codec, image, *, strength=0.0, noise=None, fps=7.0):
    return codec.encode_reference(
        image,
        torch.zeros_like(image) if noise is None else noise,
        torch.full((len(image),), fps),
        noise_aug_strength=strength,
        motion_bucket_id=127.0,
    )


def test_image_embedding_is_that_of_the_stock_pipeline(codec, stock, picture):
    with torch.no_grad():
        expected = stock._encode_image(picture, "cpu", 1, False)
    torch.testing.assert_close(reference(codec, as_tensor(picture)).image_embedding, expected, rtol=1e-4, atol=1e-5)


def test_image_latents_are_those_of_the_stock_pipeline(codec, stock, picture):
    height, width = picture.height, picture.width
    with torch.no_grad():
        pixels = stock.video_processor.preprocess(picture, height=height, width=width)
        expected = stock._encode_vae_image(pixels, "cpu", 1, False)
    torch.testing.assert_close(reference(codec, as_tensor(picture)).image_latents, expected, rtol=1e-4, atol=1e-5)


def test_image_latents_are_the_unscaled_mode(codec):
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = reference(codec, image).image_latents
    torch.testing.assert_close(latents, codec.vae.encode(image).latent_dist.mode())
    torch.testing.assert_close(latents * SCALE, codec.encode_video(image[:, None])[:, 0])


def test_video_latents_are_scaled_once(codec):
    frames = torch.rand(1, 2, 3, 32, 32) * 2 - 1
    expected = codec.vae.encode(frames[0]).latent_dist.mode() * SCALE
    torch.testing.assert_close(codec.encode_video(frames)[0], expected)


def test_noise_goes_on_the_image_latents_only(codec):
    image, noise = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 3, 32, 32)
    clean, noisy = reference(codec, image), reference(codec, image, strength=0.5, noise=noise)
    assert torch.equal(clean.image_embedding, noisy.image_embedding)
    expected = codec.vae.encode(image + 0.5 * noise).latent_dist.mode()
    torch.testing.assert_close(noisy.image_latents, expected)
    assert not torch.allclose(noisy.image_latents, clean.image_latents)


def test_time_ids_are_in_the_pretrained_order(codec, stock):
    image = torch.zeros(2, 3, 32, 32)
    time_ids = reference(codec, image, strength=0.02, fps=7.0).time_ids
    assert time_ids.tolist() == [[6.0, 127.0, pytest.approx(0.02)]] * 2
    # The stock pipeline subtracts 1 from fps before it builds these.
    assert list(inspect.signature(stock._get_add_time_ids).parameters)[:3] == [
        "fps",
        "motion_bucket_id",
        "noise_aug_strength",
    ]
    expected = stock._get_add_time_ids(7 - 1, 127, 0.02, torch.float32, 2, 1, False)
    torch.testing.assert_close(time_ids, expected)


def test_decoding_is_that_of_the_stock_pipeline(codec, stock):
    latents = torch.randn(1, 5, 4, 8, 8)
    with torch.no_grad():
        expected = stock.decode_latents(latents, 5, codec.frames_per_chunk)
    torch.testing.assert_close(codec.decode_video(latents)[0], expected[0].transpose(0, 1), rtol=1e-4, atol=1e-5)


def test_clips_of_a_batch_do_not_meet(codec):
    latents, frames = torch.randn(2, 3, 4, 8, 8), torch.rand(2, 3, 3, 32, 32)
    together, encoded = codec.decode_video(latents), codec.encode_video(frames)
    for clip in range(2):
        one = slice(clip, clip + 1)
        torch.testing.assert_close(codec.decode_video(latents[one]), together[one], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(codec.encode_video(frames[one]), encoded[one], rtol=1e-4, atol=1e-5)


def test_frames_of_a_clip_meet_in_the_decoder_within_a_chunk_only(modules):
    codec, latents = SVDCodec(*modules, frames_per_chunk=2), torch.randn(1, 4, 4, 8, 8)
    torch.manual_seed(0)
    for module in codec.vae.decoder.modules():  # fresh temporal layers are not mixed in yet
        if hasattr(module, "mix_factor"):
            torch.nn.init.zeros_(module.mix_factor)
    changed = latents.clone()
    changed[:, 1] += 1
    difference = (codec.decode_video(changed) - codec.decode_video(latents)).abs().amax(dim=(0, 2, 3, 4))
    assert (difference[:2] > 0).all() and (difference[2:] == 0).all()


def test_chunks_do_not_change_the_encoding(modules):
    frames, codec = torch.rand(1, 6, 3, 32, 32), SVDCodec(*modules)
    with torch.no_grad():
        at_once = codec.vae.encode(frames[0]).latent_dist.mode() * codec.vae.config.scaling_factor
    torch.testing.assert_close(codec.encode_video(frames)[0], at_once, rtol=1e-4, atol=1e-5)


def test_sizes(codec):
    assert (codec.latent_channels, codec.latent_stride, codec.size_multiple) == (4, 4, 32)


def test_codec_is_frozen(codec):
    assert not any(p.requires_grad for p in codec.parameters())
    assert not any(module.training for module in (*codec.vae.modules(), *codec.image_encoder.modules()))
