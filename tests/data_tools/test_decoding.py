"""Probe, shots and clips on real files: frames that carry their number, cuts, damage, and files that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from data_tools.clips import cut, plan_clips
from data_tools.probing import probe_video
from data_tools.records import Shots, Span
from data_tools.settings import ClipSettings, ProbeSettings, ShotSettings
from data_tools.shots import find_shots
from lisa_video.data.video_index import VideoReadError
from lisa_video.data.video_io import iter_frames, read_frames

SIZE, BITS = 64, 16


def numbered(count: int) -> np.ndarray:
    """Frames whose 4 x 4 blocks spell their number plus one in binary."""
    frames = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    for number in range(count):
        for bit in range(BITS):
            y, x = divmod(bit, 4)
            frames[number, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 220 if (number + 1) >> bit & 1 else 30
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    means = frames.reshape(len(frames), 4, 16, 4, 16, 3)[:, :, 4:12, :, 4:12].mean(axis=(2, 4, 5))
    return [int(sum(1 << bit for bit, mean in enumerate(one.ravel()) if mean > 125)) - 1 for one in means]


def encode(path, frames, codec="libx264", pts=None, **options) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={key: str(value) for key, value in options.items()})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = int(number if pts is None else pts[number]), Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


FILES = {
    "b-frames.mp4": {"codec": "libx264", "g": 30, "bf": 3},
    "open-gop.mp4": {"codec": "libx264", "g": 12, "bf": 3, "x264-params": "open-gop=1"},
    "long-gop.mkv": {"codec": "libx264", "g": 250},
    "frames.avi": {"codec": "libx264", "bf": 2, "g": 30},
    "stream.ts": {"codec": "libx264", "bf": 2, "g": 30},
    "old.avi": {"codec": "mpeg4", "g": 12},
    "vp9.webm": {"codec": "libvpx-vp9", "g": 30, "deadline": "realtime", "cpu-used": 8},
}


@pytest.mark.parametrize("name", FILES)
def test_frames_are_the_ones_asked_for(tmp_path, name):
    encode(tmp_path / name, numbered(60), **FILES[name])
    for wanted in ([0], [59], [13, 14, 15], [3, 11, 12, 24, 25, 58], list(range(60))):
        assert numbers(read_frames(tmp_path / name, np.array(wanted))) == wanted
        assert numbers(np.concatenate(list(iter_frames(tmp_path / name, np.array(wanted), 4)))) == wanted
    assert read_frames(tmp_path / name, np.array([30, 2, 2])).shape == (3, SIZE, SIZE, 3)
    record = probe_video(tmp_path / name, ProbeSettings())
    assert (record.num_frames, record.width, record.rotation) == (60, SIZE, 0)
    assert record.fps == pytest.approx(25, rel=1e-3)


def test_variable_rate_is_measured_and_carried_into_clips(tmp_path):
    pts = np.concatenate([np.arange(30), 30 + 3 * np.arange(30)])  # 25 fps, then a third of it
    encode(tmp_path / "vfr.mp4", numbered(60), pts=pts)
    record = probe_video(tmp_path / "vfr.mp4", ProbeSettings())
    assert record.variable_rate and numbers(read_frames(tmp_path / "vfr.mp4", np.array([40, 59]))) == [40, 59]
    shots = Shots(shots=(Span(start=0, end=30), Span(start=30, end=60)), damaged=(), decoded_frames=60)
    clips = plan_clips(tmp_path / "vfr.mp4", record, shots, ClipSettings())
    assert [clip.fps for clip in clips.clips] == pytest.approx([25, 25 / 3], rel=1e-3)


def test_a_claim_of_four_billion_frames_is_not_believed(tmp_path):
    encode(tmp_path / "x.mp4", numbered(20), g=5)
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    place = data.index(b"stts") + 12  # number of frames in the first run of equal distances
    data[place : place + 4] = b"\xff" * 4
    (tmp_path / "x.mp4").write_bytes(data)
    assert probe_video(tmp_path / "x.mp4", ProbeSettings()).num_frames == 20
    # In a process of its own: decord would abort this one.
    code = "import sys, numpy; from lisa_video.data.video_io import read_frames as r; r(sys.argv[1], numpy.arange(20))"
    command = [sys.executable, "-c", code, str(tmp_path / "x.mp4")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotation_is_applied(tmp_path, quarter_turns):
    frames = numbered(20)[:, :, :48]
    encode(tmp_path / "x.mp4", frames, g=5)
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # the matrix of the track header, 16.16 fixed point
    a, b = [(1, 0), (0, -1), (-1, 0), (0, 1)][quarter_turns]
    for offset, value in ((0, a), (4, b), (12, -b), (16, a)):
        data[place + offset : place + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    (tmp_path / "turned.mp4").write_bytes(data)
    record = probe_video(tmp_path / "turned.mp4", ProbeSettings())
    assert (record.width, record.height) == ((64, 48) if quarter_turns % 2 else (48, 64))
    assert record.rotation == -90 * quarter_turns % 360
    shown = read_frames(tmp_path / "turned.mp4", np.array([7]))
    np.testing.assert_array_equal(np.rot90(read_frames(tmp_path / "x.mp4", np.array([7]))[0], quarter_turns), shown[0])


def test_shrunk_frames_keep_their_aspect_and_memory_is_a_chunk(tmp_path):
    encode(tmp_path / "x.mp4", np.repeat(numbered(30), 2, axis=2), g=10)
    chunks = list(iter_frames(tmp_path / "x.mp4", np.arange(0, 30, 2), 4, max_side=32))
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3] and chunks[0].shape[1:] == (16, 32, 3)


def test_cuts_split_shots(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [np.repeat(rng.integers(0, 256, (1, 8, 8, 3), np.uint8), 30, axis=0) for _ in range(3)]
    frames = np.concatenate(scenes).repeat(8, axis=1).repeat(8, axis=2)
    encode(tmp_path / "cuts.mp4", frames, g=250)
    record = probe_video(tmp_path / "cuts.mp4", ProbeSettings())
    shots = find_shots(tmp_path / "cuts.mp4", record, ShotSettings())
    assert [(shot.start, shot.end) for shot in shots.shots] == [(0, 30), (30, 60), (60, 90)]
    assert shots.damaged == () and shots.decoded_frames == 90


def test_a_damaged_middle_costs_its_group_of_pictures_and_no_more(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(-25, 25, (90, SIZE, SIZE, 3))
    frames = np.clip(numbered(90).astype(int) + noise, 0, 255).astype(np.uint8)
    encode(tmp_path / "x.mp4", frames, g=15, bf=2, sc_threshold=0)
    with av.open(str(tmp_path / "x.mp4")) as container:
        packets = [(p.pts, p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    order = {pts: number for number, pts in enumerate(sorted(pts for pts, _, _ in packets))}
    pos, size = next((pos, size) for pts, pos, size in packets if order[pts] == 48)  # in the group of 45 to 59
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    data[pos : pos + size] = bytes(size)
    (tmp_path / "x.mp4").write_bytes(data)
    record = probe_video(tmp_path / "x.mp4", ProbeSettings())
    shots = find_shots(tmp_path / "x.mp4", record, ShotSettings(adaptive_threshold=1e6))
    (damaged,) = shots.damaged
    assert 40 <= damaged.start <= 48 and damaged.end == 60
    assert [(shot.start, shot.end) for shot in shots.shots] == [(0, damaged.start), (60, 90)]
    for shot in shots.shots:
        wanted = np.arange(shot.start, shot.end)
        found = np.concatenate(list(iter_frames(tmp_path / "x.mp4", wanted, 16)))
        assert numbers(found) == wanted.tolist()


def test_every_frame_of_a_shot_is_in_a_clip_or_left():
    rng = np.random.default_rng(0)
    for _ in range(500):
        start, length, stride = (int(value) for value in rng.integers((0, 1, 1), (50, 400, 5)))
        low = int(rng.integers(1, 20))
        high = low + int(rng.integers(0, 40))
        clips = cut(Span(start=start, end=start + length), stride, low, high)
        for (a, n), (b, _) in pairwise(clips):
            assert a + n * stride == b  # no gap, no overlap
        assert all(low <= n <= high for _, n in clips)
        used = sum(n for _, n in clips) * stride
        assert used <= length and (length - used < low * stride + stride or length - used < high * stride)
        if length // stride >= low:
            assert clips and clips[0][0] == start


GOOD = numbered(30)


def test_what_is_no_video_is_refused_with_its_rule(tmp_path):
    encode(tmp_path / "good.mp4", GOOD)
    good = (tmp_path / "good.mp4").read_bytes()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    encode(tmp_path / "slow.mp4", GOOD, pts=25 * np.arange(30))
    encode(tmp_path / "large.mp4", np.zeros((2, 512, 512, 3), np.uint8))
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "cut.mp4").write_bytes(good[: len(good) // 2])
    encode(tmp_path / "one.mp4", GOOD[:1])
    rules = {
        "sound": "moving picture", "slow": "frames per second", "large": "pixels", "zero": "empty",
        "text": "not a readable video", "cut": "not a readable video", "one": "single frame",
        "missing": "no such video",
    }  # fmt: skip
    for name, rule in rules.items():
        with pytest.raises(VideoReadError, match=f"{name}.mp4: .*{rule}.*Remedy"):
            probe_video(tmp_path / f"{name}.mp4", ProbeSettings(max_pixels=200_000))


@pytest.mark.parametrize("name", ["a b.mp4", 'it\'s "x".mp4', "line\nbreak.mp4", "видео.mp4", "%03d.mp4", "http:x.mp4"])
def test_odd_names_and_wrong_endings_are_no_obstacle(tmp_path, name):
    encode(tmp_path / "good.mp4", GOOD)
    (tmp_path / "good.mp4").rename(tmp_path / name)
    assert probe_video(tmp_path / name, ProbeSettings()).num_frames == 30
    (tmp_path / name).rename(tmp_path / "really_mp4.avi")
    assert numbers(read_frames(tmp_path / "really_mp4.avi", np.array([29, 3]))) == [29, 3]
