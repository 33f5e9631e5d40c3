"""The keypoint network: decoding, targets and shapes, against geometry known beforehand."""

import numpy as np
import pytest
import torch

from lisa_video.pose.keypoint_net import KeypointMaps, KeypointNet, decode, heatmap_target, network_input


def test_a_single_hot_cell_is_read_at_its_centre() -> None:
    """Cell (row 3, column 5) of a 16 x 8 heatmap for a picture of 32 x 16: centre at (11, 7) pixels."""
    heat = torch.full((1, 2, 16, 8), -50.0)
    heat[0, :, 3, 5] = 50.0
    xy, score = decode(KeypointMaps(heat, torch.tensor([[0.0, 20.0]])), (32, 16))
    torch.testing.assert_close(xy, torch.tensor([[[11.0, 7.0], [11.0, 7.0]]]))
    torch.testing.assert_close(score, torch.tensor([[0.5, 1.0]]))


def test_places_are_finer_than_a_cell() -> None:
    """Two neighbouring cells with shares 1/4 and 3/4 put the joint a quarter of a cell from the second."""
    heat = torch.full((1, 1, 8, 8), -50.0)
    heat[0, 0, 2, 3], heat[0, 0, 2, 4] = np.log(0.25), np.log(0.75)
    xy, _ = decode(KeypointMaps(heat, torch.zeros(1, 1)), (16, 16))
    torch.testing.assert_close(xy[0, 0], torch.tensor([(3.5 * 0.25 + 4.5 * 0.75) * 2, 5.0]))


def test_a_second_peak_far_away_does_not_pull() -> None:
    """The place is the expectation around the highest peak only."""
    heat = torch.full((1, 1, 32, 32), -50.0)
    heat[0, 0, 4, 4], heat[0, 0, 28, 28] = 1.0, 0.9
    xy, _ = decode(KeypointMaps(heat, torch.zeros(1, 1)), (64, 64))
    torch.testing.assert_close(xy[0, 0], torch.tensor([9.0, 9.0]))


def test_target_is_a_density_about_the_joint_and_decodes_to_it() -> None:
    """Sums to 1, has its mean at the joint, and reading it gives the joint back."""
    xy = torch.tensor([[[20.3, 33.9], [41.0, 17.2]]])
    target = heatmap_target(xy, (64, 64), 1.5)
    torch.testing.assert_close(target.sum(dim=(2, 3)), torch.ones(1, 2))
    centres = (torch.arange(32) + 0.5) * 2
    torch.testing.assert_close((target.sum(dim=2) * centres).sum(dim=2), xy[..., 0], atol=1e-2, rtol=0)
    torch.testing.assert_close((target.sum(dim=3) * centres).sum(dim=2), xy[..., 1], atol=1e-2, rtol=0)
    found, _ = decode(KeypointMaps(target.log().clamp(min=-80), torch.zeros(1, 2)), (64, 64))
    torch.testing.assert_close(found, xy, atol=0.05, rtol=0)


def test_network_input_maps_bytes_to_minus_one_and_one() -> None:
    """Black, white and a resized constant keep their value."""
    frames = np.stack([np.zeros((10, 30, 3), np.uint8), np.full((10, 30, 3), 255, np.uint8)])
    pixels = network_input(frames, 16)
    assert pixels.shape == (2, 3, 16, 16)
    torch.testing.assert_close(pixels[:, 0, 5, 5], torch.tensor([-1.0, 1.0]))


def test_forward_and_features_have_the_promised_shapes() -> None:
    """Any sides that are multiples of 8, not only the square of the training."""
    net = KeypointNet(num_joints=17, size=64, width=8, feature_dim=24, depth=1).eval()
    frames = torch.zeros(2, 3, 40, 56)
    maps = net(frames)
    assert maps.heat_logits.shape == (2, 17, 20, 28)
    assert maps.visible_logits.shape == (2, 17)
    features = net.features(frames)
    assert features.shape == (2, 24) and bool((features >= 0).all())


def test_sizes_that_the_scales_do_not_divide_are_refused() -> None:
    """A multiple of 8 is needed."""
    with pytest.raises(ValueError, match="multiple of 8"):
        KeypointNet(size=60)
