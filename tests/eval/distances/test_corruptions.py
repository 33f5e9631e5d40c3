"""What each corruption does to a clip, and that a score of it rises with the strength."""

import numpy as np
import pytest

from eval.distances.corruptions import MEANINGS, STRENGTHS, CorruptedFeatures, corrupt
from eval.distances.frechet import frechet_of_features
from lisa_video.errors import UserError

CLIP = np.random.default_rng(0).integers(60, 190, (16, 20, 24, 3), dtype=np.uint8)
CLIP[:, 0, 0, 0] = 10 * np.arange(16)  # frames tell their number


def order(clip: np.ndarray) -> list[int]:
    """Which frames of `CLIP` these are."""
    return (clip[:, 0, 0, 0] // 10).tolist()


@pytest.mark.parametrize("kind", STRENGTHS)
def test_stronger_is_further_away_and_draws_follow_the_content(kind):
    """Mean difference to the clip; the same clip gives the same draws, another one others."""
    strengths = STRENGTHS[kind]
    assert len(strengths) == 4 and list(strengths) == sorted(strengths) and kind in MEANINGS
    spoilt = [corrupt(CLIP, kind, strength) for strength in strengths]
    assert all(one.shape == CLIP.shape and one.dtype == np.uint8 for one in spoilt)
    errors = [abs(one.astype(int) - CLIP).mean() for one in spoilt]
    assert errors[0] < errors[3] and (kind in ("blur", "crop", "shuffle") or errors == sorted(errors))
    assert np.array_equal(corrupt(CLIP, kind, strengths[1]), spoilt[1])


def test_frozen_frames_repeat_the_last_moving_one():
    assert order(corrupt(CLIP, "freeze", 0.25)) == [*range(12), *[11] * 4]
    assert order(corrupt(CLIP, "freeze", 1.0)) == [0] * 16


def test_shuffled_frames_stay_in_their_window():
    for window in (2, 4, 8, 16):
        found = np.array(order(corrupt(CLIP, "shuffle", window)))
        assert sorted(found) == list(range(16)) and (found // window == np.arange(16) // window).all()
    assert order(corrupt(CLIP, "shuffle", 16)) != list(range(16))


def test_more_swaps_contain_the_fewer_ones():
    moved = [
        {frame for frame, shown in enumerate(order(corrupt(CLIP, "swap", n))) if frame != shown} for n in (1, 2, 4, 8)
    ]
    assert [len(frames) for frames in moved] == [2, 4, 8, 16]
    assert moved[0] < moved[1] < moved[2] < moved[3]


def test_noise_has_its_deviation_and_stronger_noise_is_the_same_noise():
    weak, strong = (corrupt(CLIP, "noise", sigma).astype(float) - CLIP for sigma in (4, 12))
    assert weak.std() == pytest.approx(4, rel=0.05) and strong.std() == pytest.approx(12, rel=0.05)
    assert np.corrcoef(weak[:, 1:].ravel(), strong[:, 1:].ravel())[0, 1] > 0.99


def test_crop_enlarges_the_middle_and_blur_keeps_the_mean():
    clip = np.zeros((1, 40, 40, 3), np.uint8)
    clip[:, 10:30, 10:30] = 200
    assert (corrupt(clip, "crop", 0.5) == 200).all()
    assert corrupt(clip, "blur", 0.04).mean() == pytest.approx(50, rel=0.01)
    with pytest.raises(UserError, match=r"no corruption 'fog'.*noise, blur, crop"):
        corrupt(clip, "fog", 1)


def test_the_distance_of_spoilt_features_rises_and_their_protocol_names_the_spoiling(extractor):
    """With the mean colour as feature, clips frozen from ever earlier on differ ever more from what they were."""
    clips = np.random.default_rng(1).integers(0, 40, (12, 16, 8, 8, 3), dtype=np.uint8)
    clips += (10 * np.arange(16, dtype=np.uint8))[None, :, None, None, None]
    plain = extractor.features(clips)
    spoilt = [CorruptedFeatures(extractor, "freeze", strength) for strength in STRENGTHS["freeze"]]
    distances = [frechet_of_features(plain, one.features(clips)) for one in spoilt]
    assert 0 < distances[0] and distances == sorted(distances)
    # The frozen clip's mean is that of its first frame: 75 levels lower in each of three channels.
    assert distances[3] == pytest.approx(3 * 75**2, rel=0.02)
    protocols = [extractor.protocol, *(one.protocol for one in spoilt)]
    assert len({str(protocol) for protocol in protocols}) == 5
    assert spoilt[0].dimension == 3 and spoilt[0].digest == extractor.digest and "freeze 0.25" in spoilt[0].name
