"""Every rule on clips whose answer is known: one person of known size who moves, hides, trembles or is not there."""

from collections.abc import Callable

import numpy as np
import pytest

from data_tools import rules
from data_tools.evidence import Evidence
from data_tools.measures import FrameMeasures
from data_tools.records import ClipPlan, Probe
from data_tools.settings import FilterSettings
from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.skeleton import COCO17

FRAMES, FPS = 40, 20.0
SIZE = 100.0
"""Diagonal of the standing person's box, pixels."""

# A box of 60 x 80 pixels with joints at its corners and on a line down its middle.
STANDING = np.array([[30, 5 * joint] for joint in range(17)], np.float64)
STANDING[5], STANDING[6], STANDING[11], STANDING[12] = (0, 0), (60, 0), (0, 80), (60, 80)  # shoulders, hips


def person(at: np.ndarray | tuple[float, float] = (50, 50), scale: float = 1.0) -> np.ndarray:
    """(F, 17, 2) places of a standing person; `at` is one corner, or one a frame."""
    return np.broadcast_to(np.asarray(at, np.float64), (FRAMES, 2))[:, None] + STANDING * scale


def keypoints(*people: np.ndarray, score: float = 0.9) -> Keypoints:
    xy = np.stack(people, axis=1).astype(np.float32) if people else np.zeros((FRAMES, 0, 17, 2), np.float32)
    return Keypoints(xy, np.full(xy.shape[:3], score, np.float32), 10 + np.arange(len(people)), "coco17")


def hidden(poses: Keypoints, where: tuple, score: float = 0.0) -> Keypoints:
    xy, scores = poses.xy.copy(), poses.score.copy()
    scores[where] = score
    if score == 0:
        xy[where] = np.nan
    return Keypoints(xy, scores, poses.track_id, poses.skeleton)


def still_measures(**given: np.ndarray) -> FrameMeasures:
    def row(level: float) -> np.ndarray:
        return np.full(FRAMES, level, np.float32)

    change = row(3)
    change[0] = np.nan
    values = {
        "luma": row(120), "luma_std": row(40), "change": change, "sharpness": row(0.7),
        "bars": np.zeros((FRAMES, 4), np.float32), "fixed_text": row(0), "sudden_text": row(0),
    }  # fmt: skip
    return FrameMeasures(**values | {name: np.asarray(array, np.float32) for name, array in given.items()})


def clip(
    poses: Keypoints | None = None,
    measures: FrameMeasures | None = None,
    *,
    size: tuple[int, int] = (400, 300),
    stride: int = 1,
    clip_fps: float = FPS,
    variable: bool = False,
) -> Evidence:
    """Evidence of a clip; without arguments of one that every rule likes, but for its motion."""
    return Evidence(
        ClipPlan(clip_id="clip", start=0, num_frames=FRAMES, stride=stride, fps=clip_fps),
        Probe(
            digest="", size_bytes=0, codec="h264", width=size[0], height=size[1], rotation=0, num_frames=FRAMES,
            fps=FPS, seconds=2, variable_rate=variable,
        ),
        keypoints(person()) if poses is None else poses,
        still_measures() if measures is None else measures,
    )  # fmt: skip


NOBODY = keypoints()
WITHOUT_JOINTS = keypoints(person(), score=0.2)
OF_THE_PERSON = (
    rules.seen, rules.track_breaks, rules.person_jump, rules.person_size, rules.visible_joints, rules.visible_torso,
    rules.body_score, rules.hand_score, rules.face_score, rules.jitter, rules.motion,
)  # fmt: skip


def test_rules_and_settings_name_the_same_things_in_the_same_order():
    assert [rule.name for rule in rules.RULES] == list(FilterSettings.model_fields)
    assert all(rule.measure.__name__ == rule.name and rule.measure.__doc__ for rule in rules.RULES)


@pytest.mark.parametrize("poses", [NOBODY, WITHOUT_JOINTS], ids=["no track", "no visible joint"])
def test_nobody_is_zero_people_and_nothing_else_of_them_can_be_measured(poses):
    nobody = clip(poses)
    assert rules.people(nobody) == 0 and nobody.reference_track is None
    assert [measure(nobody) for measure in OF_THE_PERSON] == [None] * len(OF_THE_PERSON)


def test_the_reference_is_the_person_who_is_large_for_long():
    briefly = person((0, 0), 1.5)
    poses = hidden(keypoints(briefly, person(), person(scale=0.5)), (slice(8, None), 0))
    assert clip(poses).reference_track == 11
    assert clip(poses).person_size == pytest.approx(SIZE)


def test_people_are_counted_without_bystanders_and_passers_by():
    assert rules.people(clip()) == 1
    assert rules.people(clip(keypoints(person(), person(scale=0.9), person((5, 5), 0.39)))) == 2
    crowd = keypoints(person(), person((9, 9)), person((20, 20)))
    assert rules.people(clip(crowd)) == 3
    assert rules.people(clip(hidden(crowd, (slice(3, None), 2)))) == 2  # there for less than a tenth of the frames
    assert rules.people(clip(hidden(crowd, (slice(4, None), 2)))) == 3


def test_seen_and_breaks_of_the_track():
    assert (rules.seen(clip()), rules.track_breaks(clip())) == (1, 0)
    late = hidden(keypoints(person()), (slice(0, 10), 0))
    assert (rules.seen(clip(late)), rules.track_breaks(clip(late))) == (0.75, 0)
    twice = hidden(hidden(late, (slice(15, 17), 0)), (slice(30, 32), 0))
    assert (rules.seen(clip(twice)), rules.track_breaks(clip(twice))) == (0.65, 2)
    two_joints = hidden(keypoints(person()), (slice(0, 20), 0, slice(2, None)))  # are no person yet
    assert rules.seen(clip(two_joints)) == 0.5


def test_a_jump_is_measured_in_person_sizes_and_wrong_joints_do_not_count():
    at = np.tile([50.0, 50.0], (FRAMES, 1))
    at[20:, 0] += 80
    assert rules.person_jump(clip(keypoints(person(at)))) == pytest.approx(0.8)
    wrong = person()
    wrong[20, :7] += 200
    assert rules.person_jump(clip(keypoints(wrong))) < 0.01
    gap = hidden(keypoints(person(at)), (slice(19, 21), 0))
    assert rules.person_jump(clip(gap)) == 0  # not seen in two frames running


def test_sizes_are_relative_to_the_frame():
    assert rules.person_size(clip()) == pytest.approx(SIZE / 300)
    assert rules.person_size(clip(size=(200, 900))) == pytest.approx(SIZE / 200)
    assert rules.short_side(clip(size=(200, 900))) == 200
    assert rules.aspect(clip(size=(200, 900))) == rules.aspect(clip(size=(900, 200))) == 4.5


def test_visible_joints_and_torso():
    poses = hidden(keypoints(person()), (slice(None), 0, slice(0, 4)), score=0.4)
    assert rules.visible_joints(clip(poses)) == pytest.approx(13 / 17)
    one_side = hidden(poses, (slice(None), 0, [5, 11]))
    assert rules.visible_torso(clip(one_side)) == 1
    no_hips = hidden(one_side, (slice(0, 30), 0, 12), score=0.4)
    assert rules.visible_torso(clip(no_hips)) == 0.25
    absent = hidden(no_hips, (slice(30, 35), 0))  # frames without the person are the business of `seen`
    assert rules.visible_torso(clip(absent)) == pytest.approx(5 / 35)


def test_scores_are_those_of_joints_that_are_drawn():
    poses = hidden(keypoints(person()), (slice(None), 0, slice(0, 4)), score=0.4)
    poses = hidden(poses, (slice(None), 0, slice(4, 5)), score=0.2)
    assert rules.body_score(clip(poses)) == pytest.approx((12 * 0.9 + 4 * 0.4) / 16)
    assert rules.hand_score(clip()) is rules.face_score(clip()) is None  # COCO's 17 joints have neither


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_jitter_is_the_noise_whatever_the_motion(noise):
    random = np.random.default_rng(0)
    time = np.arange(FRAMES)[:, None]
    jumping = person(np.hstack([50 + 2 * time, 90 - 40 * np.abs(np.sin(time / 3))]))
    trembling = keypoints(jumping + random.normal(0, noise, (FRAMES, 17, 2)))
    assert rules.jitter(clip(keypoints(jumping))) < 0.001
    assert rules.jitter(clip(trembling)) == pytest.approx(noise / SIZE, rel=0.2)
    outliers = trembling.xy.copy()
    outliers[::10, 0, 3] += 80
    spoiled = Keypoints(outliers, trembling.score, trembling.track_id)
    assert rules.jitter(clip(spoiled)) == pytest.approx(noise / SIZE, rel=0.25)


def test_motion_is_in_person_sizes_per_second_of_the_clip():
    walking = keypoints(person(np.stack([50 + 3.0 * np.arange(FRAMES), np.full(FRAMES, 50)], axis=1)))
    assert rules.motion(clip(walking)) == pytest.approx(0.6)  # 3 px a frame, 20 frames/s, 100 px
    assert rules.motion(clip(walking, stride=2)) == pytest.approx(0.3)
    assert rules.motion(clip()) == 0
    once = hidden(keypoints(person()), (slice(1, None), 0))
    assert rules.motion(clip(once)) is rules.jitter(clip(once)) is rules.person_jump(clip(once)) is None


def measured(rule: Callable[[Evidence], float | None], **given: np.ndarray) -> float | None:
    return rule(clip(measures=still_measures(**given)))


def test_black_frames():
    luma = np.full(FRAMES, 120)
    luma[:4] = 3
    assert measured(rules.black_frames, luma=luma) == 0.1


@pytest.mark.parametrize("doubled", [0.03, 0.28])  # as after fine and after coarse compression
def test_repeated_frames_are_found_among_moving_ones(doubled):
    change = np.where(np.arange(FRAMES) % 2, doubled, 3.0)
    assert measured(rules.frozen_frames, change=change) == pytest.approx(20 / 39)
    assert measured(rules.frozen_frames, change=np.full(FRAMES, 0.02)) == 1
    assert measured(rules.frozen_frames, change=np.full(FRAMES, 0.3)) == 0


def test_borders_are_the_sum_of_opposite_sides():
    bars = np.tile([0.1, 0.15, 0.02, 0.0], (FRAMES, 1))
    bars[:5] = 0  # a few frames in which they were missed
    assert measured(rules.borders, bars=bars) == pytest.approx(0.25)
    assert measured(rules.borders, bars=bars[:, [2, 3, 0, 1]]) == pytest.approx(0.25)


def test_frames_without_a_measure_are_left_out():
    values = np.linspace(0, 1, FRAMES)
    values[:20] = np.nan
    assert measured(rules.sharpness, sharpness=values) == pytest.approx(np.median(values[20:]))
    assert measured(rules.fixed_text, fixed_text=values) == pytest.approx(np.median(values[20:]))
    assert measured(rules.sudden_text, sudden_text=values) == 1
    nothing = np.full(FRAMES, np.nan)
    for rule in (rules.sharpness, rules.fixed_text, rules.sudden_text):
        assert measured(rule, **{rule.__name__: nothing}) is None


def test_a_cut_stands_out_from_the_changes_around_it():
    change = np.full(FRAMES, 5.0)
    change[20] = 40
    assert measured(rules.cut, change=change) == pytest.approx(8)
    assert measured(rules.cut, change=np.where(np.arange(FRAMES) < 20, 1.0, 6.0)) == pytest.approx(1.5)
    assert measured(rules.cut, change=np.linspace(5, 40, FRAMES)) < 2  # a camera that speeds up


def test_frame_rates_matter_only_where_they_vary():
    assert rules.fps_deviation(clip(clip_fps=15, variable=True)) == pytest.approx(0.25)
    assert rules.fps_deviation(clip(clip_fps=15)) == 0


def test_the_layout_begins_with_the_body():
    assert COCO17.num_joints == 17  # `Evidence` takes the first 17 joints of every layout for the body
