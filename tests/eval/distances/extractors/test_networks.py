"""Networks from files: TorchScript with StyleGAN-V's call, VideoMAE, torchvision; and the rules of resizing."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from eval.distances.extractors.load import load_extractor
from eval.distances.extractors.resizing import resize_clips
from lisa_video.errors import UserError

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 40, 56, 3), dtype=np.uint8)


class Detector(nn.Module):
    """The call of i3d_torchscript.pt, which resizes and rescales by itself if told so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, (2, 8, 8), stride=(1, 8, 8))

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        """(N, 3, F, H, W) -> (N, 5)."""
        if resize:
            frames = x.permute(0, 2, 1, 3, 4).flatten(0, 1)
            frames = functional.interpolate(frames, size=[224, 224], mode="bilinear", align_corners=False)
            x = frames.reshape(x.shape[0], x.shape[2], 3, 224, 224).permute(0, 2, 1, 3, 4)
        if rescale:
            x = 2.0 * x / 255.0 - 1.0
        features = self.conv(x).relu().mean(dim=(2, 3, 4))
        return features if return_features else features.softmax(dim=1)


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> tuple[Path, Detector]:
    torch.manual_seed(0)
    detector, path = Detector().eval(), tmp_path_factory.mktemp("script") / "detector.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(detector).save(str(path))
    return path, detector


def test_torchscript_gets_clips_as_its_publishers_give_them(script, caplog):
    """`own` leaves resizing and range to the file; since the file squashes, our squash gives the same."""
    path, detector = script
    own = load_extractor(f"i3d-torchscript:{path}", "own")
    assert "is not the i3d_torchscript.pt of StyleGAN-V" in caplog.text and own.dimension == 5
    with torch.no_grad():
        raw = torch.from_numpy(CLIPS).permute(0, 4, 1, 2, 3).float()
        expected = detector(raw, rescale=True, resize=True, return_features=True).numpy()
    np.testing.assert_allclose(own.features(CLIPS), expected, rtol=1e-5)
    squash, crop = (load_extractor(f"i3d-torchscript:{path}", mode) for mode in ("squash", "centre-crop"))
    np.testing.assert_allclose(squash.features(CLIPS), expected, atol=1e-5)
    assert abs(crop.features(CLIPS) - expected).max() > 1e-4
    assert own.protocol["resize"] == "the file's own" and "squash" in squash.protocol["resize"]
    assert own.digest.startswith("sha256:") and own.protocol["name"] == "TorchScript network"


def test_torchscript_that_cannot_be_used_is_explained(script, tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: no such TorchScript file"):
        load_extractor(f"i3d-torchscript:{tmp_path / 'none.pt'}")
    (tmp_path / "text.pt").write_text("no network")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(3, 2)).save(str(tmp_path / "linear.pt"))
    for name in ("text.pt", "linear.pt"):
        with pytest.raises(UserError, match=r"not a TorchScript network with the call of i3d_torchscript\.pt"):
            load_extractor(f"i3d-torchscript:{tmp_path / name}")


def test_videomae_is_the_mean_of_its_tokens(tmp_path):
    """A tiny encoder with random weights, and a folder's own mean and deviation."""
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    net = VideoMAEModel(config).eval()
    net.save_pretrained(tmp_path)
    VideoMAEImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(tmp_path)
    extractor = load_extractor(f"videomae:{tmp_path}")
    frames = torch.from_numpy(CLIPS).permute(0, 1, 4, 2, 3).float()
    small = torch.stack([functional.interpolate(clip, size=(32, 32), mode="bilinear") for clip in frames])
    with torch.no_grad():
        expected = net((small / 255 - 0.5) / 0.25).last_hidden_state.mean(dim=1).numpy()
    np.testing.assert_allclose(extractor.features(CLIPS), expected, atol=1e-5)
    with pytest.raises(UserError, match=r"clips of 16 frames, VideoMAE.* takes 4.*--frames 4"):
        extractor.check_length(16)
    with pytest.raises(UserError, match="no resizing of its own"):
        load_extractor(f"videomae:{tmp_path}", "own")
    with pytest.raises(UserError, match=r"no config.json and safetensors.*save_pretrained"):
        load_extractor(f"videomae:{tmp_path / 'none'}")
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"videomae"', '"vit"'))
    with pytest.raises(UserError, match="the folder holds a 'vit'"):
        load_extractor(f"videomae:{tmp_path}")


@pytest.fixture(scope="module")
def r3d(tmp_path_factory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net, path = models.video.r3d_18(num_classes=7).eval(), tmp_path_factory.mktemp("r3d") / "r3d_18.pth"
    torch.save(net.state_dict(), path)
    return path, net


def test_torchvision_features_are_what_the_last_layer_reads(r3d):
    """Its linear layer makes torchvision's own logits of them, after torchvision's own transforms."""
    path, net = r3d
    own = load_extractor(f"torchvision:r3d_18:{path}", "own")
    transforms = models.video.R3D_18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        logits = net(torch.stack([transforms(torch.from_numpy(clip).permute(0, 3, 1, 2)) for clip in CLIPS])).numpy()
        found = net.fc(torch.from_numpy(own.features(CLIPS)).float()).numpy()
    np.testing.assert_allclose(found, logits, atol=1e-4)
    assert own.dimension == 512 and "torchvision's: to" in own.protocol["resize"]


def test_torchvision_weights_that_do_not_fit_are_explained(r3d, tmp_path):
    path, _ = r3d
    with pytest.raises(UserError, match=r"no video network 'r4d'.*use one of .*r3d_18"):
        load_extractor(f"torchvision:r4d:{path}")
    with pytest.raises(UserError, match="no such weights file"):
        load_extractor("torchvision:r3d_18:none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, file in (("s3d", path), ("r3d_18", tmp_path / "text.pth")):
        with pytest.raises(UserError, match=f"not the state dictionary of {name}"):
            load_extractor(f"torchvision:{name}:{file}")
    with pytest.raises(UserError, match="clips of 8 frames, torchvision mvit_v1_b takes 16"):
        _mvit(tmp_path).check_length(8)


def _mvit(folder: Path):
    from eval.distances.extractors import torchvision_features as module

    torch.save({"head.1.weight": torch.zeros(400, 768)}, folder / "mvit.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_load", lambda name, path: (nn.Identity(), 768))  # 36 million weights less
        return load_extractor(f"torchvision:mvit_v1_b:{folder / 'mvit.pth'}")


@pytest.mark.parametrize(
    ("name", "words"),
    [("c3d", "no extractor 'c3d'"), ("videomae", "videomae needs weights"), ("torchvision:r3d_18", "no such weights")],
)
def test_extractors_are_named_with_their_weights(name, words):
    with pytest.raises(UserError, match=words):
        load_extractor(name)
    with pytest.raises(UserError, match=r"no resizing 'stretch'.*squash, centre-crop, own"):
        load_extractor(name, "stretch")


def test_resizing_squashes_or_crops_and_never_averages():
    """A wide clip, bright in its middle square only; and stripes that an antialiased reduction would blend to 60."""
    wide = torch.full((1, 3, 2, 8, 24), 200, dtype=torch.uint8)
    wide[..., :8], wide[..., 16:] = 0, 0
    assert resize_clips(wide, 8, "centre-crop").mean() == 200
    # Columns 3 i + 1 are read, and 8 to 15 are bright.
    assert resize_clips(wide, 8, "squash")[0, 0, 0, 0].tolist() == [0, 0, 0, 200, 200, 0, 0, 0]
    assert resize_clips(wide.transpose(3, 4), 8, "centre-crop").mean() == 200
    stripes = torch.tensor([0, 0, 0, 240] * 4, dtype=torch.uint8).expand(1, 3, 1, 16, 16)
    assert resize_clips(stripes, 4, "squash").max() == 0  # the pixels around 4 i + 1.5
