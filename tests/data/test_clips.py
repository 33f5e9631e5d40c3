"""Laws of loading one clip from real files."""

import numpy as np
import pytest
import torch

from lisa_video.data.batch import SampleKey
from lisa_video.data.clips import MAX_TRIES, PoseClipDataset, check_manifest_fits
from lisa_video.data.order import record_index
from lisa_video.errors import UserError
from lisa_video.pose.keypoints import save_keypoints
from lisa_video.pose.skeleton import COCO17

STEP = 6  # of the background's brightness from frame to frame, see conftest
LEFT, RIGHT = COCO17.joints.index("left_wrist"), COCO17.joints.index("right_wrist")


def _dataset(manifest, **changes):
    return PoseClipDataset(manifest, **{"num_frames": 4, "frame_stride": 2, "size": (40, 40), **changes})


def _frame_numbers(clip):
    """Numbers of the frames in the video, from the background in the lower corner, where the square never is."""
    corner = clip.frames[:, :, -4:, -4:].float().mean(dim=(1, 2, 3))
    return (corner / STEP).round().int().tolist()


def _red_centre(frame):
    """(x, y) of the red square in a (3, H, W) frame, from the outer corner."""
    red = np.clip(frame[0].numpy().astype(float) - frame[1].numpy() - 100, 0, None)
    rows, columns = np.indices(red.shape) + 0.5
    return np.array([(columns * red).sum(), (rows * red).sum()]) / red.sum()


@pytest.mark.parametrize("position", range(10))
def test_pictures_poses_and_maps_lie_on_each_other(good_manifest, position):
    dataset = _dataset(good_manifest, flip_probability=0.5, num_frames=3)
    clip = dataset[SampleKey(position, position % 5)]
    assert clip.frames.shape == clip.pose_maps.shape == (3, 3, 40, 40)
    assert clip.frames.dtype == clip.pose_maps.dtype == torch.uint8
    scores = clip.keypoints.score[:, 0]
    wrist = LEFT if scores[0, LEFT] else RIGHT
    for frame in range(3):
        place = clip.keypoints.xy[frame, 0, wrist]
        assert scores[frame, wrist] == 1 and np.abs(_red_centre(clip.frames[frame]) - place).max() < 1
        drawn = clip.pose_maps[frame].amax(dim=0).numpy().astype(float)
        rows, columns = np.indices(drawn.shape) + 0.5
        centre = np.array([(columns * drawn).sum(), (rows * drawn).sum()]) / drawn.sum()
        assert np.abs(centre - place).max() < 0.5


def test_mirroring_happens_as_often_as_asked(good_manifest):
    def mirrored(probability):
        dataset = _dataset(good_manifest, flip_probability=probability, num_frames=1)
        clips = [dataset[SampleKey(position, 0)] for position in range(24)]
        return sum(bool(clip.keypoints.score[0, 0, RIGHT]) for clip in clips)

    assert mirrored(0.0) == 0 and mirrored(1.0) == 24 and 5 <= mirrored(0.5) <= 19


def test_frames_follow_the_stride_within_the_record(good_manifest):
    starts = set()
    for position in range(40):
        clip = _dataset(good_manifest, num_frames=3, frame_stride=4)[SampleKey(position, 3)]
        numbers = _frame_numbers(clip)
        assert numbers == [numbers[0], numbers[0] + 4, numbers[0] + 8]
        starts.add(numbers[0])
    # The record "d" is frames 3 to 16, a clip takes 9 of them: every start from 3 to 8 and no other.
    assert clip.clip_id == "d" and starts == set(range(3, 9))


def test_validation_takes_the_first_frames_as_they_are(good_manifest):
    dataset = _dataset(good_manifest, random_start=False, flip_probability=1.0)
    for position in (0, 7):
        clip = dataset[SampleKey(position, 1)]
        assert not clip.skipped and clip.clip_id == "b"
        assert _frame_numbers(clip) == [5, 7, 9, 11]
        assert clip.keypoints.score[0, 0, LEFT] == 1


def test_frame_rate_counts_the_stride(good_manifest):
    assert _dataset(good_manifest, frame_stride=3)[SampleKey(0, 0)].fps == pytest.approx(8.0)


def test_strides_of_record_and_settings_multiply(mini_clips):
    manifest = mini_clips.manifest([mini_clips.record("every third", start=2, length=26, stride=3)])
    assert manifest[0].num_frames == 8
    dataset = _dataset(manifest, num_frames=3, frame_stride=2, size=(48, 64))
    starts = set()
    for position in range(20):
        clip = dataset[SampleKey(position, 0)]
        numbers = _frame_numbers(clip)
        assert numbers == [numbers[0], numbers[0] + 6, numbers[0] + 12] and clip.fps == pytest.approx(24 / 6)
        assert np.abs(_red_centre(clip.frames[2]) - clip.keypoints.xy[2, 0, LEFT]).max() < 1
        starts.add(numbers[0])
    assert starts == {2, 5, 8, 11}


def test_clip_is_a_function_of_seed_and_key(good_manifest):
    def load(seed, position):
        return _dataset(good_manifest, seed=seed, flip_probability=0.5)[SampleKey(position, 0)]

    def same(first, second):
        return torch.equal(first.frames, second.frames) and torch.equal(first.pose_maps, second.pose_maps)

    assert same(load(3, 8), load(3, 8)) and load(3, 8).position == 8
    assert not all(same(load(3, 8), load(3, position)) for position in range(5))
    assert not all(same(load(3, 8), load(seed, 8)) for seed in range(3))


def _spoil(clips, kind):
    """A record of 20 frames that looks fine in the manifest and is not."""
    record = clips.record("bad")
    video = clips.folder / record.video
    if kind == "missing":
        video.unlink()
    elif kind == "zero":
        video.write_bytes(b"")
    elif kind == "text":
        video.write_text("no video")
    elif kind == "cut":
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    elif kind == "keypoints missing":
        (clips.folder / record.keypoints).unlink()
    elif kind == "keypoints of another length":
        other = clips.record("other", length=19)
        (clips.folder / record.keypoints).write_bytes((clips.folder / other.keypoints).read_bytes())
    elif kind == "other size":
        record = record.model_copy(update={"width": 48, "height": 64})
    elif kind == "video ends early":
        record = record.model_copy(update={"start_frame": 17})
    elif kind == "short":
        record = clips.record("bad", length=6)
    return record


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such video"),
        ("zero", "not a readable video"),
        ("text", "not a readable video"),
        ("cut", "not a readable video"),
        ("keypoints missing", "cannot read keypoints"),
        ("keypoints of another length", "19 frames of keypoints"),
        ("other size", "64x48 pixels, the manifest says 48x64"),
        ("video ends early", "was asked for, the video has 20"),
        ("short", "6 frames, 4 at stride 2 need 7"),
    ],
)
def test_unusable_clip_is_reported_and_replaced_by_the_next_in_order(mini_clips, kind, reason):
    records = [mini_clips.record("good0"), _spoil(mini_clips, kind), mini_clips.record("good1")]
    dataset = _dataset(mini_clips.manifest(records), seed=5)
    position = next(position for position in range(3, 6) if record_index(position, 3, 5) == 1)
    clip = dataset[SampleKey(position, 1)]
    follower = record_index(position + 1 if position < 5 else 3, 3, 5)
    assert clip.clip_id == records[follower].clip_id and clip.position == position
    assert [skipped.clip_id for skipped in clip.skipped] == ["bad"] and reason in clip.skipped[0].reason
    assert dataset[SampleKey(position, 1)].clip_id == clip.clip_id
    assert dataset[SampleKey(position, 0)].skipped == ()


def test_only_broken_clips_end_the_search_with_their_reasons(mini_clips):
    good = mini_clips.record("good")
    records = [good.model_copy(update={"clip_id": f"gone{n}", "video": f"gone{n}.mp4"}) for n in range(MAX_TRIES + 3)]
    with pytest.raises(UserError) as error:
        _dataset(mini_clips.manifest(records))[SampleKey(0, 0)]
    named = [record.clip_id for record in records if f"{record.clip_id}: " in str(error.value)]
    assert len(named) == MAX_TRIES and "gone0" in named and "no such video" in str(error.value)
    with pytest.raises(UserError, match="among 2 records"):
        _dataset(mini_clips.manifest(records[:2]))[SampleKey(0, 0)]


def test_manifest_check_counts_short_clips(mini_clips):
    records = [mini_clips.record(f"c{length}", length=length) for length in (6, 7, 3, 20)]
    manifest = mini_clips.manifest([*records, mini_clips.record("v", length=2, split="val")])
    assert check_manifest_fits(manifest, 4, 2, (40, 40)) == 2
    assert check_manifest_fits(manifest, 1, 1, (40, 40)) == 0
    with pytest.raises(UserError, match=r"none of the 4 clips .* 21 frames"):
        check_manifest_fits(manifest, 21, 1, (40, 40))


def test_manifest_check_loads_the_first_long_clip(mini_clips):
    short, long = mini_clips.record("short", length=4), mini_clips.record("long")
    manifest = mini_clips.manifest([short, long])
    (mini_clips.folder / short.video).unlink()
    assert check_manifest_fits(manifest, 4, 2, (40, 40)) == 1
    (mini_clips.folder / long.keypoints).unlink()
    with pytest.raises(UserError, match=r"long\.npz"):
        check_manifest_fits(manifest, 4, 2, (40, 40))


def test_unknown_joints_stay_unknown(good_manifest, mini_clips):
    keypoints = _dataset(good_manifest)[SampleKey(0, 0)].keypoints
    save_keypoints(mini_clips.folder / "clip.npz", keypoints)
    assert np.isnan(keypoints.xy[:, 0, 0]).all() and (keypoints.score[:, 0, 0] == 0).all()


def test_manifest_check_passes_over_broken_clips(mini_clips):
    broken = [_spoil(mini_clips, "zero"), mini_clips.record("gone").model_copy(update={"video": "gone away.mp4"})]
    manifest = mini_clips.manifest([*broken, mini_clips.record("good")])
    assert check_manifest_fits(manifest, 4, 2, (40, 40)) == 0
    with pytest.raises(UserError, match=r"among 2 records \(bad: .*; gone: .*gone away\.mp4: no such video"):
        check_manifest_fits(mini_clips.manifest(broken), 4, 2, (40, 40))


def test_kept_clips_are_those_that_were_loaded(mini_clips):
    manifest = mini_clips.manifest([mini_clips.record("a", length=9), mini_clips.record("b", length=9)])
    settings = {"num_frames": 3, "frame_stride": 2, "size": (40, 40), "flip_probability": 0.5, "seed": 3}
    fresh, kept = PoseClipDataset(manifest, **settings), PoseClipDataset(manifest, **settings, keep_in_memory=True)
    for position in range(40):
        key = SampleKey(position, position % 2)
        once, again = fresh[key], kept[key]
        assert (again.clip_id, again.position) == (once.clip_id, position)
        assert torch.equal(again.frames, once.frames) and torch.equal(again.pose_maps, once.pose_maps)
    for video in mini_clips.folder.glob("*.mp4"):
        video.unlink()
    assert kept[SampleKey(0, 0)].clip_id == "a"  # needs no file any more
