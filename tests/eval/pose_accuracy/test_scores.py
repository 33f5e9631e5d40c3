"""Scores of synthetic clips whose errors are known: the figure's diagonal is 20 pixels."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from eval.json_files import write_json
from eval.pose_accuracy.scores import pck_difference
from eval.protocol import clips_digest, protocol_id, require_same_protocol
from eval.runs.evaluation import Evaluation
from eval.runs.scoring import MAX_PSNR_DB, PosedClip, distance_between, pixel_scores, pose_scores, psnr_db
from lisa_video.errors import UserError

FRAMES = 6  # of the synthetic clips


def test_pck_of_known_errors(make_arm) -> None:
    """Errors of 0, 1.5, 3 and 9 pixels against limits of 1, 2 and 4."""
    arm = make_arm("arm", [0, 2, 3, 9])
    assert {key: value.value for key, value in arm.scores.pck.items()} == {"0.05": 0.25, "0.1": 0.5, "0.2": 0.75}
    assert arm.scores.pck_per_joint["0.1"] == [0.5] * 17
    assert arm.scores.pck_per_frame["0.2"] == [0.75] * FRAMES
    assert arm.scores.error_px == pytest.approx((0 + 2 + 3 + 9) / 4)
    assert arm.scores.error_diagonal == pytest.approx((0 + 2 + 3 + 9) / 4 / 20)
    assert arm.scores.ceiling["0.05"].value == 1.0
    share = arm.scores.clip("clip-2")
    assert (share.visible, share.correct) == (FRAMES * 17, (0, 0, FRAMES * 17))


def test_interval_of_two_kinds_of_clips_spans_them(make_arm) -> None:
    """Half of 20 clips right: the standard error is sqrt(.25/20) = 0.112, so the interval is about 0.28 to 0.72."""
    value = make_arm("arm", [0] * 10 + [9] * 10).scores.pck["0.1"]
    assert value.value == 0.5
    assert value.low == pytest.approx(0.5 - 1.96 * 0.112, abs=0.04)
    assert value.high == pytest.approx(0.5 + 1.96 * 0.112, abs=0.04)


def test_frechet_of_a_brightness_shift(make_arm) -> None:
    """All pixels but one are 10 brighter (nothing is clipped): d² = 3 x 10², less the one blue pixel's share."""
    (distance,) = make_arm("arm", [0, 0, 0, 0]).evaluation.distances
    assert distance.frechet.value == pytest.approx(300.0, rel=1e-2)
    assert distance.floor < 5.0 and (distance.clips, distance.dimension) == (4, 3)


def test_chance_is_the_pose_of_another_clip(make_arm) -> None:
    """Clip n + 1 stands 1 pixel to the right of clip n; the last meets the first, 3 pixels away: limits 1, 2, 4."""
    chance = make_arm("arm", [0, 0, 0, 0]).scores.chance
    assert {key: value.value for key, value in chance.items()} == {"0.05": 0.75, "0.1": 0.75, "0.2": 1.0}


def test_psnr_closed_form() -> None:
    """An error of 10 everywhere: 20 log10(255 / 10); no error counts 100 dB."""
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    assert psnr_db(truth + np.uint8(10), truth) == pytest.approx(20 * np.log10(25.5))
    assert psnr_db(truth - np.uint8(10), truth) == pytest.approx(20 * np.log10(25.5))
    assert psnr_db(truth, truth) == MAX_PSNR_DB


def test_difference_is_paired_by_clip_name(make_arm) -> None:
    """Right where the other is wrong: 3 of 4 against 1 of 4."""
    a, b = make_arm("a", [0, 9, 9, 9]), make_arm("b", [9, 0, 0, 0])
    difference = pck_difference(a.scores, b.scores, 0.1)
    assert difference.value == 0.5
    assert pck_difference(b.scores, a.scores, 0.1).value == -0.5
    assert difference.low < 0 < difference.high


def test_scores_of_other_protocols_do_not_meet(make_arm) -> None:
    """The message names what differs; the id follows the content, not the order of the items."""
    a, b = make_arm("a", [0, 1]), make_arm("b", [0, 1], protocol={"guidance": 3.0})
    assert a.scores.protocol_id != b.scores.protocol_id
    with pytest.raises(UserError, match="differ in guidance"):
        pck_difference(a.scores, b.scores, 0.1)
    require_same_protocol([a.scores.protocol, dict(reversed(a.scores.protocol.items()))])
    assert protocol_id({"x": 1, "y": [2]}) == protocol_id({"y": [2], "x": 1}) != protocol_id({"x": 1, "y": [3]})
    assert clips_digest(["b", "a"]) == clips_digest(["a", "b"]) != clips_digest(["a", "c"])


def test_protocol_names_what_the_numbers_depend_on(make_arm) -> None:
    """Both digests, the clips, the size and what was passed in."""
    protocol = make_arm("arm", [0, 1]).scores.protocol
    assert protocol["detector_digest"] == "sha256:" + "0" * 64
    assert "detector" not in make_arm("arm", [0, 1]).evaluation.pixels.protocol
    assert (protocol["clips"], protocol["frames"], protocol["guidance"]) == (2, FRAMES, 2.0)
    assert protocol["clips_digest"] == clips_digest(["clip-0", "clip-1"])


def test_file_keeps_everything_and_is_valid_json(make_arm, tmp_path: Path) -> None:
    """NaN (here the floor of two clips) is null in the file and NaN again when read."""
    evaluation = make_arm("arm", [0, 9]).evaluation
    write_json(tmp_path / "scores.json", asdict(evaluation))
    raw = json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert raw["distances"][0]["floor"] is None
    again = Evaluation.from_json(raw)
    assert np.isnan(again.distances[0].floor) and again.distances[0].frechet == evaluation.distances[0].frechet
    assert (again.poses, again.pixels, again.loss) == (evaluation.poses, evaluation.pixels, None)


def test_faults_are_explained(clip_pair, detector, extractor) -> None:
    """Too few clips, an item given twice, a clip given twice, nobody to be seen, features that are not finite."""

    def score(*numbers: int, **protocol):
        pairs = [clip_pair(number, 0) for number in numbers]
        posed = [PosedClip(pair.clip_id, pair.driving, pair.driving, pair.driving) for pair in pairs]
        return pose_scores(posed, detector, protocol=protocol)

    with pytest.raises(UserError, match="0 clips to score, at least 2"):
        score()
    with pytest.raises(UserError, match="1 clips to score, at least 2"):
        score(0)
    with pytest.raises(UserError, match="given twice: frames"):
        score(0, 1, frames=3)
    with pytest.raises(ValueError, match="given twice"):
        score(0, 0)
    with pytest.raises(UserError, match="at least 2"):
        pixel_scores({"a": 1.0}, protocol={})
    unseen = clip_pair(0, 0).driving
    unseen = replace(unseen, score=np.zeros_like(unseen.score))
    nobody = [PosedClip(name, unseen, unseen, unseen) for name in "ab"]
    with pytest.raises(UserError, match="no clip with visible joints"):
        pose_scores(nobody, detector, protocol={})
    rows = {"a": np.zeros(3), "b": np.full(3, np.nan)}
    with pytest.raises(UserError, match="not finite"):
        distance_between(rows, rows, extractor, protocol={})
