"""The demo's features: what they must and must not react to."""

import numpy as np
import pytest
import torch

from eval.distances.features import KeypointNetFeatures
from lisa_video.pose.keypoint_net import KeypointNet, network_input


@pytest.fixture(scope="module")
def extractor() -> KeypointNetFeatures:
    """An untrained, tiny network; its features are as deterministic as a trained one's."""
    torch.manual_seed(0)
    return KeypointNetFeatures(KeypointNet(size=32, width=8, feature_dim=16, depth=1), "sha256:" + "0" * 64)


VIDEOS = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)


def test_first_half_is_the_mean_over_frames_and_second_the_mean_change(extractor: KeypointNetFeatures) -> None:
    """Against frames put through the network one at a time."""
    features = extractor.features(VIDEOS)
    assert features.shape == (3, 32) and features.dtype == np.float64
    assert extractor.dimension == 32
    with torch.no_grad():
        frames = [extractor.net.features(network_input(VIDEOS[1, f : f + 1], 32))[0].numpy() for f in range(4)]
    np.testing.assert_allclose(features[1, :16], np.mean(frames, axis=0), atol=1e-5)
    changes = [abs(frames[f + 1] - frames[f]) for f in range(3)]
    np.testing.assert_allclose(features[1, 16:], np.mean(changes, axis=0), atol=1e-5)


def test_only_the_second_half_sees_time(extractor: KeypointNetFeatures) -> None:
    """Shuffled frames keep the mean; a frozen clip does not change at all."""
    shuffled = extractor.features(VIDEOS[:, [2, 0, 3, 1]])
    plain = extractor.features(VIDEOS)
    np.testing.assert_allclose(shuffled[:, :16], plain[:, :16], atol=1e-6)
    assert abs(shuffled[:, 16:] - plain[:, 16:]).max() > 1e-4
    frozen = extractor.features(np.repeat(VIDEOS[:, :1], 4, axis=1))
    assert (frozen[:, 16:] == 0).all()
    assert (extractor.features(VIDEOS[:, :1])[:, 16:] == 0).all()


def test_other_sizes_are_resized_and_the_protocol_says_so(extractor: KeypointNetFeatures) -> None:
    """A picture enlarged by pixel repetition is nearly the same to the network."""
    large = VIDEOS.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(extractor.features(large), extractor.features(VIDEOS), atol=0.05)
    assert "32 x 32" in extractor.protocol["resize"]
    assert "not I3D" in extractor.protocol["name"]
    assert extractor.protocol["digest"] == extractor.digest
