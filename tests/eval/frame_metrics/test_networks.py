"""Metrics that take a network from a file: LPIPS, FID over frames, identity."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
import torchvision

from eval.frame_metrics.frechet_frames import FrameFrechet
from eval.frame_metrics.identity import IdentityEmbedder, IdentitySimilarity, OnnxEmbedder
from eval.frame_metrics.perceptual import LPIPS
from lisa_video.errors import UserError


def clip(seed: int, frames: int = 3, side: int = 40) -> np.ndarray:
    """Random frames."""
    return np.random.default_rng(seed).integers(40, 200, (frames, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """torchvision's SqueezeNet 1.1 with random weights: the smallest of LPIPS' backbones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def plain_lpips(path, a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS from torchvision's own network, the heads of the lpips package and the paper's formula."""
    import lpips

    network = torchvision.models.squeezenet1_1(weights=None)
    network.load_state_dict(torch.load(path))
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/squeeze.pth", map_location="cpu")
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((torch.from_numpy(p).float() / 127.5 - 1 - mean) / std).permute(2, 0, 1)[None] for p in (a, b))
    total = 0.0
    ends = {2: 0, 5: 1, 8: 2, 10: 3, 11: 4, 12: 5, 13: 6}
    for layer, module in enumerate(network.features.eval()):
        with torch.no_grad():
            x, y = module(x), module(y)
        if layer + 1 in ends:
            unit = [z / (z.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y)]
            head = heads[f"lin{ends[layer + 1]}.model.1.weight"]
            total += float(((unit[0] - unit[1]) ** 2 * head).sum(1).mean())
    return total


def test_lpips_is_that_of_its_formula(squeezenet):
    """Against torchvision's network and the heads, put together here; 0 for equal frames."""
    real, other = clip(0, frames=2), clip(1, frames=2)
    metric = LPIPS(squeezenet, "squeeze")
    expected = np.mean([plain_lpips(squeezenet, a, b) for a, b in zip(real, other, strict=True)])
    assert metric.measure(real, other)["lpips"] == pytest.approx(expected, rel=1e-4)
    assert metric.measure(real, real)["lpips"] == 0.0


def test_lpips_says_whose_weights_it_has(squeezenet):
    """Random weights are not the published ones."""
    protocol = LPIPS(squeezenet, "squeeze").protocol
    assert protocol["backbone_digest"] == "sha256:" + hashlib.sha256(squeezenet.read_bytes()).hexdigest()
    assert "NOT the published ones" in protocol["backbone_weights"]


def test_lpips_backbones_that_cannot_be_used(squeezenet, tmp_path):
    """None given, none there, another network, no weights at all."""
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79.pth of torchvision.*--lpips-backbone"):
        LPIPS(None)
    with pytest.raises(UserError, match="vgg16-397923af"):
        LPIPS(tmp_path / "none.pth", "vgg")
    with pytest.raises(UserError, match="weights do not fit"):
        LPIPS(squeezenet, "alex")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot read backbone weights"):
        LPIPS(tmp_path / "bad.pth", "squeeze")


class _MeanColour(torch.nn.Module):
    """The mean of each channel, or with `return_features` twice that, in the manner of StyleGAN's file."""

    def forward(self, frames: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        """(N, 3, H, W) uint8 -> (N, 3)."""
        mean = frames.float().mean((2, 3))
        return 2 * mean if return_features else mean


@pytest.fixture(scope="module")
def colour_network(tmp_path_factory):
    """`_MeanColour` as TorchScript."""
    path = tmp_path_factory.mktemp("networks") / "colour.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_MeanColour()).save(str(path))
    return path


def test_fid_of_a_brightness_shift(colour_network):
    """Means of the features differ by 2 x 10 in each of three channels, covariances not: 3 x 20²."""
    fid = FrameFrechet(colour_network)
    for seed in range(4):
        fid.update(fid.features(clip(seed)), fid.features(clip(seed) + np.uint8(10)))
    values = fid.values()
    assert values["fid"] == pytest.approx(1200.0, rel=1e-4)
    assert (values["fid_frames"], values["fid_dimensions"]) == (12, 3) and 0 <= values["fid_floor"] < 100.0
    same = FrameFrechet(colour_network)
    same.update(same.features(clip(0)), same.features(clip(0)))
    assert same.values()["fid"] == pytest.approx(0.0, abs=1e-6) and np.isnan(same.values()["fid_floor"])


def test_fid_networks_that_cannot_be_used(colour_network, tmp_path):
    """None there, not TorchScript, wrong input."""
    with pytest.raises(UserError, match="cannot load the network"):
        FrameFrechet(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot load the network"):
        FrameFrechet(tmp_path / "bad.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(5, 2)).save(str(tmp_path / "linear.pt"))
    with pytest.raises(UserError, match="refuses frames"):
        FrameFrechet(tmp_path / "linear.pt").features(clip(0))


class _FirstPixel(IdentityEmbedder):
    """The colour of a pixel is the identity; black is nobody."""

    protocol = {"name": "pixel"}  # noqa: RUF012

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """See `IdentityEmbedder`."""
        vectors = frames[:, 0, 0].astype(float)
        vectors[vectors.sum(axis=1) == 0] = np.nan
        return vectors


def test_identity_is_the_cosine_with_the_reference():
    """The reference is red; generated frames are red, green, and one without a person that does not count."""
    red, green, black, orange = (200, 0, 0), (0, 90, 0), (0, 0, 0), (50, 50, 0)
    real, generated = (np.zeros((4, 4, 4, 3), np.uint8) for _ in range(2))
    real[:], generated[:] = (
        np.array([red, red, orange, red])[:, None, None],
        np.array([green, red, green, black])[:, None, None],
    )
    values = IdentitySimilarity(_FirstPixel()).measure(real, generated)
    assert values["identity"] == pytest.approx(0.5)  # the first frame is the reference itself
    assert values["identity_real"] == pytest.approx((2 + np.sqrt(0.5)) / 3)
    assert np.isnan(IdentitySimilarity(_FirstPixel()).measure(real[:1], generated[:1])["identity"])


def onnx_average(height: int, width: int) -> bytes:
    """An ONNX file (protobuf by hand) of one GlobalAveragePool: (N, 3, height, width) -> (N, 3, 1, 1)."""

    def field(number: int, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        data = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2, len(data)]) + data

    def tensor(name: str, *shape: int | str) -> bytes:
        sizes = b"".join(field(1, field(2 if isinstance(size, str) else 1, size)) for size in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))

    node = field(1, "picture") + field(2, "vector") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "mean") + field(11, tensor("picture", "n", 3, height, width))
    graph += field(12, tensor("vector", "n", 3, 1, 1))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


def test_an_onnx_network_embeds(tmp_path):
    """The mean colour of the resized frame, (x - 127.5) / 127.5; many frames go through in several batches."""
    (tmp_path / "mean.onnx").write_bytes(onnx_average(8, 16))
    embedder = OnnxEmbedder(tmp_path / "mean.onnx")
    frames = np.zeros((20, 32, 32, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None] * 10
    frames[..., 2] = 255
    expected = np.stack([np.arange(20) * 10, np.arange(20) * 10, np.full(20, 255)], axis=1)
    np.testing.assert_allclose(embedder.embed(frames), (expected - 127.5) / 127.5, atol=1e-6)
    assert "16 x 8" in embedder.protocol["input"] and embedder.protocol["digest"].startswith("sha256:")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot load the network"):
        OnnxEmbedder(tmp_path / "bad.onnx")
    with pytest.raises(UserError, match="no such file"):
        OnnxEmbedder(tmp_path / "none.onnx")
