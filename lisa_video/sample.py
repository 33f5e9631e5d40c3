"""`lisa-video sample`: files in, one mp4 out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from lisa_video.data.geometry import Geometry
from lisa_video.data.video_io import probe, read_frames, write_video
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pose.detectors.load import detector_from
from lisa_video.pose.keypoints import Keypoints, load_keypoints
from lisa_video.pose.render import draw_pose_maps

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def sample_video(
    run: Path,
    out: Path,
    *,
    reference: Path,
    pose: Path,
    seed: int,
    detector: str,
    keypoints_fps: float,
    overrides: Sequence[str] = (),
) -> None:
    """Sample one video with a run's newest weights, at the size and length that it was trained on.

    Args:
        run: run_dir.
        out: mp4 file.
        reference: picture, or video whose first frame is taken.
        pose: driving video, or keypoint file in pixels of the reference.
        seed: of the noise.
        detector: for a driving video; see `detector_from`.
        keypoints_fps: frames per second of a keypoint file; videos know their own.
        overrides: settings of the run to change, such as `sampling.num_steps=50`.

    Raises:
        UserError: a file that cannot be read or written, or a driving pose that is too short.
    """
    _check_output(out)
    picture = _reference_picture(reference)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = PoseVideoPipeline.from_run(run, device, overrides)
    size, num_frames = tuple(pipeline.contract["size"]), int(pipeline.contract["num_frames"])
    stride = int(pipeline.contract["frame_stride"])
    fitted = Geometry(picture.shape[:2], size, mirror=False).apply_frames(picture[None])[0]
    keypoints, fps = _driving_pose(pose, detector, keypoints_fps, picture.shape[:2], size, num_frames, stride)
    maps = torch.from_numpy(draw_pose_maps(keypoints, size)).permute(0, 3, 1, 2)[None] / 255
    reference_tensor = torch.from_numpy(fitted).permute(2, 0, 1)[None] / 127.5 - 1
    with tqdm(total=pipeline.sampling.num_steps, desc="sample", unit="step") as bar:
        video = pipeline(
            reference_tensor, maps, torch.tensor([fps]), seed=seed, keys=[0], on_step=lambda _: bar.update()
        )
    write_video(out, video[0].numpy(), fps)


def _reference_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of a picture, or of a video's first frame."""
    if path.suffix.lower() not in _PICTURES:
        first: np.ndarray = read_frames(path, np.array([0]))[0]
        return first
    try:
        with Image.open(path) as picture:
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the picture ({error})", where=path, remedy="name a PNG, JPEG or video") from error


def _driving_pose(
    pose: Path,
    detector: str,
    keypoints_fps: float,
    reference_size: tuple[int, int],
    size: tuple[int, int],
    num_frames: int,
    stride: int,
) -> tuple[Keypoints, float]:
    """Poses in pixels of the sampled frames, and the frames per second after the stride."""
    chosen = np.arange(num_frames) * stride
    if pose.suffix == ".npz":
        known = load_keypoints(pose)
        _check_length(pose, known.num_frames, chosen)
        keypoints, source_size, fps = known.frames(chosen), reference_size, keypoints_fps
    else:
        info = probe(pose)
        _check_length(pose, info.num_frames, chosen)
        keypoints = detector_from(detector).detect(read_frames(pose, chosen), info.fps / stride)
        source_size, fps = (info.height, info.width), info.fps
    return Geometry(source_size, size, mirror=False).apply_keypoints(keypoints), fps / stride


def _check_length(pose: Path, num_frames: int, chosen: np.ndarray) -> None:
    if chosen[-1] >= num_frames:
        raise UserError(
            f"{num_frames} frames, but the run's clips need {chosen[-1] + 1}",
            where=pose,
            remedy="give a longer driving pose",
        )


def _check_output(out: Path) -> None:
    """Said before minutes of sampling, not after."""
    if out.suffix.lower() != ".mp4" or out.is_dir():
        raise UserError("not the name of an mp4 file", where=out, remedy="name a file that ends in .mp4")
    out.parent.mkdir(parents=True, exist_ok=True)
