"""`lisa-video eval pose`: pose accuracy on folders of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from lisa_video.errors import UserError


def pose_command(
    generated: Annotated[Path, typer.Argument(help="folder of generated videos")],
    driving: Annotated[
        Path | None, typer.Option(help="folder of driving keypoints (.npz), or of driving videos, by the same names")
    ] = None,
    real: Annotated[Path | None, typer.Option(help="folder of real videos by the same names")] = None,
    detector: Annotated[
        str, typer.Option(help="mediapipe, keypoint_net, folder of a keypoint network, or YAML file of a detector")
    ] = "mediapipe",
    normalise: Annotated[str, typer.Option(help="box, torso or head: by what distances are divided")] = "box",
    thresholds: Annotated[str, typer.Option(help="of PCK, fractions of the normaliser")] = "0.05,0.1,0.2",
    frames: Annotated[int | None, typer.Option(min=1, help="frames of a clip at most; default: all")] = None,
    stride: Annotated[int, typer.Option(min=1, help="take every so many-th frame")] = 1,
    enlarge: Annotated[
        int | None,
        typer.Option(
            min=0, help="enlarge frames to so many pixels before detection; 0: never; default: 256, KeypointNet: 0"
        ),
    ] = None,
    driving_size: Annotated[
        str | None, typer.Option(help="WxH pixels of keypoint files; default: of the real, else generated, videos")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="folder for found poses: a killed command continues")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for all numbers")] = None,
    device: Annotated[str, typer.Option(help="for a keypoint network: cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="of intervals and floor")] = 0,
) -> None:
    """Find the poses in generated videos again, and say how well they follow: PCK, OKS-AP, errors, swapped sides.

    Against the driving keypoints (--driving), or against what the same detector finds in the real video (--real), or
    both: then the detector's own error on the real video is shown as the ceiling.

    Example: `lisa-video eval pose samples --driving clips/keypoints --real clips/videos --json pose.json`
    """
    from eval.json_files import write_json
    from eval.pose_accuracy.found_poses import FoundPoses
    from eval.pose_accuracy.pose import PoseSettings, score_poses
    from eval.report.pose_text import report_lines
    from lisa_video.pose.detectors.load import detector_settings
    from lisa_video.pose.detectors.scoring import scoring_detector
    from lisa_video.pose.person_size import NORMALISERS

    if normalise not in NORMALISERS:
        raise UserError(f"no normaliser {normalise!r}", where="--normalise", remedy=f"use {', '.join(NORMALISERS)}")
    settings = PoseSettings(
        thresholds=_thresholds(thresholds),
        normaliser=cast(Any, normalise),
        max_frames=frames,
        stride=stride,
        driving_size=_size(driving_size),
        seed=seed,
    )
    driving, real = _sources(driving, real)
    finder = scoring_detector(detector_settings(detector, device, key="--detector"), enlarge)
    report = score_poses(
        generated, FoundPoses(finder, cache), finder.skeleton, driving=driving, real=real, settings=settings
    )
    for line in report_lines(report):
        typer.echo(line)
    if json_file is not None:
        write_json(json_file, report.to_json())
        typer.echo(f"numbers: {json_file}")


def _sources(driving: Path | None, real: Path | None) -> tuple[Path | None, Path | None]:
    """Driving videos are what their poses are found in: they stand in the place of real ones."""
    if driving is None or any(driving.rglob("*.npz")):
        return driving, real
    if not driving.is_dir():
        raise UserError("no such folder", where=driving, remedy="name a folder of keypoint files or of videos")
    if real is not None:
        raise UserError(
            "no keypoint files (.npz)", where=driving,
            remedy="give driving videos without --real, or keypoint files beside --real",
        )  # fmt: skip
    return None, driving


def _thresholds(text: str) -> tuple[float, ...]:
    try:
        values = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        values = ()
    if not values or min(values) <= 0:
        raise UserError(
            f"{text!r} is no list of thresholds", where="--thresholds", remedy="give numbers above 0, such as 0.1,0.2"
        )
    return values


def _size(text: str | None) -> tuple[int, int] | None:
    """Text such as 512x768, width first -> (H, W)."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"{text!r} is no size", where="--driving-size", remedy="give width and height, such as 512x768")
    return int(height), int(width)
