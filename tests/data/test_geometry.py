"""Frames and keypoints move together."""

import cv2
import numpy as np
import pytest

from lisa_video.data.geometry import Geometry
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import COCO17

LEFT, RIGHT, NOSE = (COCO17.joints.index(name) for name in ("left_wrist", "right_wrist", "nose"))

SIZES = [
    ((64, 64), (64, 64)),
    ((97, 61), (32, 32)),
    ((61, 97), (32, 48)),
    ((48, 64), (96, 96)),
    ((33, 47), (47, 33)),
    ((101, 103), (25, 64)),
    ((96, 50), (96, 40)),
]


def _keypoints(points):
    """One frame, one person; {joint: (x, y)}, all others unknown."""
    xy, score = np.full((1, 1, 17, 2), np.nan, np.float32), np.zeros((1, 1, 17), np.float32)
    for joint, point in points.items():
        xy[0, 0, joint], score[0, 0, joint] = point, 0.9
    return Keypoints(xy, score, np.zeros(1, np.int64))


def _dot(size, x, y, radius=3):
    """A smooth dot; (x, y) counts from the outer corner of the picture."""
    rows, columns = np.indices(size) + 0.5
    picture = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return np.repeat(picture[None, :, :, None], 3, axis=3).round().astype(np.uint8)


def _centre(picture):
    weight = np.where(picture[..., 0] > 40, picture[..., 0].astype(float) - 40, 0)
    rows, columns = np.indices(weight.shape) + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_dot_and_keypoint_agree(source, target, mirror):
    geometry = Geometry(source, target, mirror)
    for fraction in (0.42, 0.5, 0.57):
        x, y = source[1] * fraction, source[0] * (1 - fraction)
        frames = geometry.apply_frames(_dot(source, x, y, radius=max(source) / 30))
        moved = geometry.apply_keypoints(_keypoints({LEFT: (x, y)}))
        assert frames.shape == (1, *target, 3) and frames.dtype == np.uint8
        # The law asks for 1 pixel; half a pixel catches a forgotten half-pixel shift at every scale.
        assert np.abs(_centre(frames[0]) - moved.xy[0, 0, RIGHT if mirror else LEFT]).max() < 0.5


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_target_is_covered_without_distortion(source, target):
    height, width = Geometry(source, target, False).resized_size
    assert height >= target[0] and width >= target[1]
    assert height == target[0] or width == target[1]
    assert abs(height / source[0] - width / source[1]) <= 0.5 / min(source) + 1e-9


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_corners_of_the_source_are_corners_of_the_scaled_picture(source, target):
    geometry = Geometry(source, target, False)
    moved = geometry.apply_keypoints(_keypoints({LEFT: (0, 0), NOSE: source[::-1]})).xy[0, 0]
    (height, width), (top, left) = geometry.resized_size, geometry.crop_corner
    assert moved[LEFT].tolist() == [-left, -top]
    assert moved[NOSE] == pytest.approx([width - left, height - top], abs=1e-3)


@pytest.mark.parametrize("mirror", [False, True])
def test_crop_is_centred_and_nothing_is_filled_in(mirror):
    frames = np.full((2, 60, 91, 3), 200, np.uint8)
    moved = Geometry((60, 91), (32, 32), mirror).apply_frames(frames)
    assert (moved == 200).all()
    centre = _keypoints({NOSE: (45.5, 30)})
    assert Geometry((60, 91), (32, 32), mirror).apply_keypoints(centre).xy[0, 0, NOSE] == pytest.approx(
        [16, 16], abs=0.51
    )


def test_equal_sizes_change_nothing():
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3), dtype=np.uint8)
    keypoints = _keypoints({LEFT: (3.25, 7.5)})
    geometry = Geometry((20, 31), (20, 31), False)
    assert np.array_equal(geometry.apply_frames(frames), frames)
    moved = geometry.apply_keypoints(keypoints)
    assert np.array_equal(moved.xy, keypoints.xy, equal_nan=True) and np.array_equal(moved.score, keypoints.score)


def test_mirror_is_exact_and_its_own_inverse():
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3), dtype=np.uint8)
    keypoints = _keypoints({LEFT: (3.25, 7.5), NOSE: (20, 2)})
    mirror = Geometry((20, 31), (20, 31), True)
    assert np.array_equal(mirror.apply_frames(frames), frames[:, :, ::-1])
    once = mirror.apply_keypoints(keypoints)
    assert once.score[0, 0, RIGHT] == np.float32(0.9) and once.score[0, 0, LEFT] == 0
    assert once.xy[0, 0, RIGHT].tolist() == [27.75, 7.5] and once.xy[0, 0, NOSE].tolist() == [11, 2]
    twice = mirror.apply_keypoints(once)
    assert np.array_equal(twice.xy, keypoints.xy, equal_nan=True) and np.array_equal(twice.score, keypoints.score)


def test_keypoints_given_are_left_alone():
    keypoints = _keypoints({LEFT: (3.25, 7.5)})
    before = keypoints.xy.copy(), keypoints.score.copy()
    Geometry((20, 31), (20, 20), True).apply_keypoints(keypoints)
    assert np.array_equal(keypoints.xy, before[0], equal_nan=True) and np.array_equal(keypoints.score, before[1])


def test_joints_that_leave_the_crop_lose_their_score_only():
    moved = Geometry((32, 64), (32, 32), False).apply_keypoints(_keypoints({LEFT: (2, 5), NOSE: (30, 31)}))
    assert moved.score[0, 0, LEFT] == 0 and moved.xy[0, 0, LEFT].tolist() == [-14, 5]
    assert moved.score[0, 0, NOSE] == np.float32(0.9)
    assert moved.xy.dtype == np.float32 and moved.score.dtype == np.float32


def test_unknown_place_never_keeps_a_score():
    keypoints = _keypoints({LEFT: (np.nan, 3)})
    assert Geometry((32, 32), (32, 32), False).apply_keypoints(keypoints).score[0, 0, LEFT] == 0


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    assert np.abs(Geometry((64, 64), (16, 16), False).apply_frames(stripes).astype(int) - 100).max() <= 1


def test_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match="geometry"):
        Geometry((32, 32), (16, 16), False).apply_frames(np.zeros((1, 32, 33, 3), np.uint8))
    with pytest.raises(ValueError, match="positive"):
        Geometry((0, 32), (16, 16), False)


def test_every_frame_is_moved_alike():
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)
    geometry = Geometry((40, 30), (16, 16), True)
    moved = geometry.apply_frames(frames)
    for frame in range(3):
        assert np.array_equal(moved[frame], geometry.apply_frames(frames[frame : frame + 1])[0])
    expected = cv2.resize(frames[1], (16, 21), interpolation=cv2.INTER_AREA)[2:18, ::-1]
    assert np.array_equal(moved[1], expected)
