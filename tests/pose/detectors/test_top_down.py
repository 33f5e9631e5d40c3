"""Crops as mmpose makes them, the way back to the frame, and batches over frames and people."""

from __future__ import annotations

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.top_down import CropGeometry, TopDownDetector, skeleton_of
from lisa_video.pose.skeleton import skeleton_by_name

BOXES = np.array([[10.3, 5.0, 60.2, 110.7], [-20, 30, 90, 60], [0, 0, 160, 120], [70, 70, 73, 74]], np.float32)


def spots(*places: tuple[float, float]) -> np.ndarray:
    """A frame of 120 x 160 pixels with soft white spots at places counted from the outer corner."""
    y, x = np.mgrid[:120, :160] + 0.5
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in places)
    return np.repeat((255 * light).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


class Brightest(TopDownDetector):
    """All joints at the centre of light of the crop."""

    def __init__(self, person: PersonDetector, batch_size: int, udp: bool = False) -> None:
        super().__init__(
            CropGeometry(48, 64, udp=udp), "coco17", person, name="brightest", digest="sha256:0", batch_size=batch_size
        )
        self.batches: list[int] = []

    def joints(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(crops))
        light = crops[..., 0].astype(np.float64)
        total = light.sum(axis=(1, 2))
        x = (light * np.arange(48)).sum(axis=(1, 2)) / total
        y = (light * np.arange(64)[:, None]).sum(axis=(1, 2)) / total
        if self.geometry.udp:  # mmpose's UDP decoders count the outermost centres as 0 and the full size
            x, y = x * 48 / 47, y * 64 / 63
        return np.tile(np.stack([x, y], axis=1)[:, None], (1, 17, 1)), np.full((len(crops), 17), 1.5)


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("padding", [1.25, 1.0])
def test_crops_are_those_of_mmpose(udp, padding):
    prepare_mmpose()
    from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine

    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    geometry = CropGeometry(48, 64, padding, udp)
    centre, size = geometry.windows(BOXES.astype(np.float64))
    for index, box in enumerate(BOXES):
        sample = GetBBoxCenterScale(padding)({"img": frame, "bbox": box[None]})
        expected = TopdownAffine((48, 64), use_udp=udp)(sample)["img"]
        difference = np.abs(geometry.crop(frame, centre[index], size[index]).astype(int) - expected)
        # mmpose's matrix is solved in float32, and OpenCV interpolates on a grid of 1/32 pixel.
        assert difference.mean() < 0.5 and np.quantile(difference, 0.99) <= 8


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("place", [(40.0, 60.0), (45.5, 52.25)])
def test_a_joint_comes_back_to_where_it_is_in_the_frame(fixed_boxes, place, udp):
    detector = Brightest(fixed_boxes((20, 30, 70, 90)), 4, udp)
    (people,) = detector.find(spots(place)[None])
    assert np.allclose(people.xy, place, atol=0.1)


def test_frames_and_people_share_batches_without_changing_the_answer(fixed_boxes):
    frames = np.stack([spots((40 + i, 60), (120, 50 - i)) for i in range(3)])
    answers = {}
    for batch_size in (1, 4, 100):
        detector = Brightest(fixed_boxes((20, 40, 60, 80), (100, 20, 140, 80)), batch_size)
        answers[batch_size] = detector.find(frames)
        assert detector.batches == {1: [1] * 6, 4: [4, 2], 100: [6]}[batch_size]
    for others in (answers[4], answers[100]):
        for a, b in zip(answers[1], others, strict=True):
            assert np.array_equal(a.xy, b.xy) and np.array_equal(a.box, b.box)
    assert np.allclose(answers[1][2].xy[:, 0], [(42, 60), (120, 48)], atol=0.1)


def test_scores_stay_within_their_range(fixed_boxes):
    (people,) = Brightest(fixed_boxes((20, 30, 70, 90)), 4).find(spots((40, 60))[None])
    assert np.array_equal(people.score, np.ones((1, 17), np.float32))


def test_nobody_and_no_frames(fixed_boxes):
    detector = Brightest(fixed_boxes(), 4)
    frames = spots((40, 60))[None]
    assert [people.xy.shape for people in detector.find(frames)] == [(0, 17, 2)]
    assert detector.find(frames[:0]) == [] and detector.batches == []
    assert detector.detect(frames).score.shape == (1, 0, 17)


def test_of_a_crowd_the_largest_are_looked_at(fixed_boxes):
    boxes = [(10 * i, 0, 10 * i + 9, 20 + i) for i in range(12)]
    detector = Brightest(fixed_boxes(*boxes), 100)
    detector.max_people = 2
    (people,) = detector.find(np.full((1, 120, 160, 3), 9, np.uint8))
    assert people.box[:, 0].tolist() == [80, 90, 100, 110]  # twice as many as are kept of the clip
    assert detector.detect(np.full((1, 120, 160, 3), 9, np.uint8)).score.shape == (1, 2, 17)


def test_the_name_and_digest_tell_how_people_are_found(fixed_boxes):
    detector = Brightest(fixed_boxes(), 4)
    assert detector.name == "brightest, people by fixed boxes" and detector.digest == "sha256:0"
    detector.person.digest = "sha256:1"
    assert Brightest(detector.person, 4).digest not in ("sha256:0", "sha256:1")


def test_only_known_layouts_are_taken():
    body = list(skeleton_by_name("coco17").joints)
    assert skeleton_of(17, None, "x") == skeleton_of(17, body, "x") == "coco17"
    assert skeleton_of(133, body + [f"other_{i}" for i in range(116)], "x") == "coco_wholebody133"
    for count, names in ((26, None), (17, ["left_eye", "right_eye", "nose", "neck", *body[4:]])):
        with pytest.raises(UserError, match="joints"):
            skeleton_of(count, names, "x")
