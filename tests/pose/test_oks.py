"""OKS by hand, and average precision against pycocotools' `COCOeval` on random people."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lisa_video.pose.keypoints import Keypoints
from lisa_video.pose.matching import visible_joints
from lisa_video.pose.oks import OKS_THRESHOLDS, average_precision, match_by_oks, similarity
from lisa_video.pose.skeleton import COCO17


def keypoints(xy: np.ndarray, score: np.ndarray) -> Keypoints:
    """Rounded to float32, as files have them."""
    return Keypoints(xy.astype(np.float32), score.astype(np.float32), np.arange(xy.shape[1]))


def random_clip(seed: int, frames: int = 12) -> tuple[Keypoints, Keypoints]:
    """Up to 25 people found for up to 4 true ones: some exact, some rough, some missing, some made up."""
    generator = np.random.default_rng(seed)
    people, found = int(generator.integers(1, 5)), int(generator.choice([1, 3, 5, 25]))
    everyone = max(people, found)
    centres = generator.uniform(50, 400, (frames, everyone, 1, 2))
    body = generator.normal(0, 30, (frames, everyone, 17, 2))
    truth = keypoints((centres + body)[:, :people], generator.choice([0.2, 1.0], (frames, people, 17)))
    noise = generator.normal(0, 1, body.shape) * generator.choice([1.0, 4.0, 40.0], (frames, everyone, 1, 1))
    sure = (
        generator.choice([0.3, 0.8, 1.0], (frames, everyone, 1))
        * np.where(np.arange(everyone) < people, 1, 0.7)[:, None]
    )
    score = generator.random((frames, everyone, 17)) * sure
    order = generator.permutation(everyone)[:found]
    return keypoints((centres + body + noise)[:, order], score[:, order]), truth


def coco_precision(clips: list[tuple[Keypoints, Keypoints]]) -> np.ndarray:
    """(T,) AP over all frames by pycocotools; the same rules of presence, area and person score."""
    annotations, results, images = [], [], []
    for predicted, truth in clips:
        true_visible, found_visible = visible_joints(truth), visible_joints(predicted)
        for frame in range(truth.num_frames):
            images.append({"id": len(images) + 1})
            for person in np.flatnonzero(true_visible[frame].any(axis=-1)):
                seen = truth.xy[frame, person][true_visible[frame, person]].astype(float)
                width, height = np.ptp(seen, axis=0)
                places = np.concatenate(
                    [truth.xy[frame, person].astype(float), 2.0 * true_visible[frame, person, :, None]], axis=1
                )
                annotations.append({
                    "id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0,
                    "area": width * height, "bbox": [0, 0, 1, 1], "keypoints": places.ravel().tolist(),
                    "num_keypoints": int(true_visible[frame, person].sum()),
                })  # fmt: skip
            for person in np.flatnonzero(found_visible[frame].any(axis=-1)):
                places = np.concatenate([predicted.xy[frame, person].astype(float), np.ones((17, 1))], axis=1)
                results.append({
                    "image_id": len(images), "category_id": 1, "keypoints": places.ravel().tolist(),
                    "score": float(predicted.score[frame, person].astype(float).mean()),
                })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "keypoints")
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, 0, 0].mean(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    """Three clips with misses, extra people and more than 20 found in a frame, at each of the ten thresholds."""
    clips = [random_clip(10 * seed + number) for number in range(3)]
    ours = average_precision([match_by_oks(*clip) for clip in clips])[0]
    np.testing.assert_allclose(ours, coco_precision(clips), atol=1e-12)
    assert 0.05 < ours.mean() < 0.95, "the case would not tell anything"


def test_a_clip_drawn_twice_counts_as_two_clips() -> None:
    """Weights 2, 0 and 1 against the same clips written out; ties between the copies move AP by little."""
    clips = [match_by_oks(*random_clip(seed)) for seed in range(3)]
    weighted = average_precision(clips, np.array([[2, 0, 1], [1, 1, 1]]))
    np.testing.assert_allclose(weighted[0], average_precision([clips[0], clips[0], clips[2]])[0], atol=0.02)
    np.testing.assert_array_equal(weighted[1], average_precision(clips)[0])


def test_similarity_by_hand() -> None:
    """Area 10,000, nose (σ 0.026) off by 10 px and hip (σ 0.107) exact: (exp(-100 / (2e4 * 0.052²)) + 1) / 2."""
    true = np.zeros((1, 17, 2))
    found = true.copy()
    found[0, 0] = (6.0, 8.0)
    visible = np.zeros((1, 17), bool)
    visible[0, [0, 11]] = True
    oks = similarity(found, true, visible, np.array([1e4]), np.array(COCO17.oks_sigmas))
    assert oks[0, 0] == pytest.approx((np.exp(-100 / (2e4 * 0.052**2)) + 1) / 2)
    found[0, 0] = np.nan
    assert similarity(found, true, visible, np.array([1e4]), np.array(COCO17.oks_sigmas))[0, 0] == 0.5


def test_perfect_missing_and_made_up_people() -> None:
    """AP 1 for the truth, 0 for nobody; a surer made-up person in each frame halves the precision."""
    _, truth = random_clip(3)
    one = keypoints(truth.xy[:, :1], np.ones_like(truth.score[:, :1]))
    assert average_precision([match_by_oks(one, one)])[0].tolist() == [1.0] * len(OKS_THRESHOLDS)
    nobody = match_by_oks(keypoints(one.xy, 0 * one.score), one)
    assert average_precision([nobody])[0].max() == 0.0 and nobody.oks.tolist() == [0.0] * 12
    unsure = keypoints(one.xy, 0.6 * one.score)
    crowd = keypoints(np.concatenate([one.xy, one.xy + 500], axis=1), np.concatenate([unsure.score, one.score], axis=1))
    # The made-up people come first in the ranking, so precision grows to 1/2 with the last true one.
    assert average_precision([match_by_oks(crowd, one)])[0] == pytest.approx([0.5] * len(OKS_THRESHOLDS))
    assert np.isnan(average_precision([match_by_oks(one, keypoints(one.xy, 0 * one.score))])).all()


def test_people_without_an_area_are_neither_asked_for_nor_held_against_anyone() -> None:
    """A second true person of one visible joint; whoever finds it is not a false alarm."""
    _, truth = random_clip(3)
    one = keypoints(truth.xy[:, :1], np.ones_like(truth.score[:, :1]))
    lone = 0 * one.score
    lone[..., 0] = 1.0
    both = keypoints(np.concatenate([one.xy, one.xy + 500], axis=1), np.concatenate([one.score, lone], axis=1))
    found = keypoints(both.xy, np.ones_like(both.score))
    matches = match_by_oks(found, both)
    assert matches.true_people == truth.num_frames
    assert average_precision([matches])[0].tolist() == [1.0] * len(OKS_THRESHOLDS)
