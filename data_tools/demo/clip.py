"""Make and write one clip: a pure function of its plan, the size and the length."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_tools.demo.body import Body
from data_tools.demo.camera import following_camera
from data_tools.demo.look import make_look
from data_tools.demo.plan import ClipPlan
from data_tools.demo.render import render_clip
from lisa_video.pose.keypoints import Keypoints, save_keypoints

CLIPS_PER_FOLDER = 1000
_CRF = 14  # visually lossless: a stronger compression would blur the small figures

_LUMA = np.array([65.481, 128.553, 24.966], np.float32) / 255
_CHROMA = np.array([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32) / 255


def video_path(index: int) -> str:
    """Place of the video, relative to the data set."""
    return f"videos/{index // CLIPS_PER_FOLDER:03d}/clip-{index:06d}.mp4"


def keypoints_path(index: int) -> str:
    """Place of the keypoint file, relative to the data set."""
    return f"keypoints/{index // CLIPS_PER_FOLDER:03d}/clip-{index:06d}.npz"


def make_clip(plan: ClipPlan, size: int, num_frames: int, fps: float) -> tuple[np.ndarray, Keypoints]:
    """Render a clip.

    Returns:
        (T, size, size, 3) uint8 RGB frames and their keypoints.
    """
    rng = np.random.default_rng(plan.seed)
    motion, facing = plan.motion(num_frames, fps, rng)
    look = make_look(plan.split, plan.look)
    body = Body(look.shape, detail=_detail(size)).pose(motion)
    return render_clip(body, look, following_camera(body, facing, rng), size)


def _detail(size: int) -> int:
    """Vertices per convex piece that still show at this picture size."""
    return 28 if size <= 96 else 48 if size <= 192 else 80


def _to_yuv420(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to the (3H/2, W) planes of BT.601 video range, which players assume for small pictures.

    Done here so that the pixels do not depend on the conversion that an FFmpeg build happens to use.
    """
    height, width = frame.shape[:2]
    pixels = frame.astype(np.float32)
    luma = pixels @ _LUMA + 16
    quarter = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    chroma = np.moveaxis(quarter @ _CHROMA.T + 128, -1, 0)
    planes = np.concatenate([luma.ravel(), chroma.ravel()])
    return np.clip(planes + 0.5, 0, 255).astype(np.uint8).reshape(height * 3 // 2, width)


def encode_h264(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write (T, H, W, 3) uint8 RGB frames as H.264 in mp4, the same bytes every time."""
    with av.open(str(path), "w", format="mp4") as container:
        # One thread: with more, libx264 cuts the picture differently on machines with other core counts. Without
        # B-frames and macroblock tree: with both, tiny pictures were coded differently from call to call.
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1000),
            options={"crf": str(_CRF), "preset": "medium", "threads": "1", "bf": "0", "x264-params": "mbtree=0"},
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_to_yuv420(frame), format="yuv420p")))
        container.mux(stream.encode())


def write_clip(out: Path, plan: ClipPlan, size: int, num_frames: int, fps: float) -> str:
    """Make the files of a clip unless they are there, and return the digest of the video.

    Both files are written under a temporary name first, so that an existing file is a finished one.
    """
    video, keypoints = out / video_path(plan.index), out / keypoints_path(plan.index)
    if not (_is_written(video) and _is_written(keypoints)):
        frames, poses = make_clip(plan, size, num_frames, fps)
        video.parent.mkdir(parents=True, exist_ok=True)
        keypoints.parent.mkdir(parents=True, exist_ok=True)
        draft = keypoints.with_name(keypoints.name + ".tmp")
        save_keypoints(draft, poses)
        draft.replace(keypoints)
        draft = video.with_name(video.name + ".tmp")
        encode_h264(draft, frames, fps)
        draft.replace(video)
    return "sha256:" + hashlib.sha256(video.read_bytes()).hexdigest()


def _is_written(path: Path) -> bool:
    # A power cut can leave an empty file under the final name.
    return path.is_file() and path.stat().st_size > 0
