"""The detector around the keypoint network: its geometry, its files, and how well the embedded one does."""

import hashlib

import cv2
import numpy as np
import pytest
import torch

from data_tools.demo.generate import generate_demo_data
from lisa_video.data.manifest import Manifest
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError
from lisa_video.pose.accuracy import count_correct, total
from lisa_video.pose.detectors.keypoint_net import SHIPPED_KEYPOINT_NET, KeypointNetDetector
from lisa_video.pose.keypoint_net import KeypointMaps, KeypointNet, network_input, weights_digest
from lisa_video.pose.keypoints import load_keypoints


class _BrightSpot(KeypointNet):
    """Finds the brightest place, so that the detector's geometry can be tested without training."""

    def forward(self, frames: torch.Tensor) -> KeypointMaps:
        heat = torch.nn.functional.avg_pool2d(frames.mean(dim=1, keepdim=True), 2) * 40
        return KeypointMaps(heat.expand(-1, 17, -1, -1), torch.full((len(frames), 17), 3.0))


def test_detector_answers_in_pixels_of_the_given_frames() -> None:
    """A white spot of 8 x 12 pixels in frames of 96 x 128 (twice and thrice the net's 32 and 64...)."""
    frames = np.zeros((3, 96, 128, 3), np.uint8)
    centres = [(20.0, 30.0), (64.0, 48.0), (100.0, 78.0)]
    for frame, (x, y) in zip(frames, centres, strict=True):
        frame[int(y) - 6 : int(y) + 6, int(x) - 4 : int(x) + 4] = 255
    found = KeypointNetDetector(_BrightSpot(size=64, width=8), "sha256:0").detect(frames)
    assert found.xy.shape == (3, 1, 17, 2)
    np.testing.assert_allclose(found.xy[:, 0, 5], centres, atol=0.75)
    np.testing.assert_allclose(found.score, 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_long_clips_are_cut_without_losing_order() -> None:
    """70 frames, more than one batch: the spot moves one pixel a frame."""
    frames = np.zeros((70, 64, 96, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[30:34, 10 + number : 14 + number] = 255
    found = KeypointNetDetector(_BrightSpot(size=64, width=8), "sha256:0").detect(frames)
    np.testing.assert_allclose(found.xy[:, 0, 0, 0], 12 + np.arange(70), atol=1.0)


def test_written_network_answers_alike_and_names_its_bytes(tmp_path) -> None:
    """fp16 on disk changes answers by rounding only; the digest is that of the file."""
    torch.manual_seed(0)
    net = KeypointNet(num_joints=17, size=32, width=8, feature_dim=16, depth=1).eval()
    net.save_pretrained(tmp_path / "net")
    detector = KeypointNetDetector.from_pretrained(tmp_path / "net")
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = net(network_input(frames, 32)).heat_logits
    torch.testing.assert_close(detector.net(network_input(frames, 32)).heat_logits, expected, atol=2e-2, rtol=0)
    file_digest = hashlib.sha256((tmp_path / "net" / "model.safetensors").read_bytes()).hexdigest()
    assert detector.digest == weights_digest(tmp_path / "net") == f"sha256:{file_digest}"
    assert "32 px" in detector.name


def test_shipped_network_finds_the_joints_of_fresh_clips(tmp_path) -> None:
    """Clips of a seed that it was not trained on, as rendered and as a weak generator would blur them.

    Against the poses of another clip it must score far worse.
    """
    manifest = Manifest(
        generate_demo_data(tmp_path, clips=12, seed=987, num_frames=4, workers=1, progress=False), "train"
    )
    detector = KeypointNetDetector.from_pretrained(SHIPPED_KEYPOINT_NET)
    clips = [(manifest[i], load_keypoints(manifest.resolve(manifest[i].keypoints))) for i in range(len(manifest))]
    frames = [read_frames(manifest.resolve(record.video), np.arange(4)) for record, _ in clips]
    found = [detector.detect(clip) for clip in frames]
    soft = [detector.detect(np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in clip])) for clip in frames]
    truth = [poses for _, poses in clips]
    assert total(map(count_correct, found, truth)).accuracy(0.1) > 0.9
    assert total(map(count_correct, soft, truth)).accuracy(0.1) > 0.85
    assert total(map(count_correct, found, [truth[-1], *truth[:-1]])).accuracy(0.1) < 0.5


def test_missing_weights_are_a_user_error(tmp_path) -> None:
    """The message names the folder."""
    with pytest.raises(UserError, match=r"keypoint network.*Remedy"):
        KeypointNetDetector.from_pretrained(tmp_path / "nowhere")
