"""`lisa-video eval fvd`: distances between two folders of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from lisa_video.errors import UserError


def fvd_command(
    real: Annotated[Path, typer.Argument(help="folder of real videos")],
    fake: Annotated[Path, typer.Argument(help="folder of generated videos; names need not match")],
    extractor: Annotated[
        str,
        typer.Option(
            help="i3d, i3d-torchscript:PATH, videomae:PATH, torchvision:NAME:PATH (such as r3d_18), or keypoint-net"
        ),
    ] = "i3d",
    frames: Annotated[int, typer.Option(min=1, help="frames of a clip")] = 16,
    stride: Annotated[int, typer.Option(min=1, help="distance of a clip's frames in the video")] = 1,
    resize: Annotated[str, typer.Option(help="squash, centre-crop, or own (TorchScript, torchvision)")] = "squash",
    clips: Annotated[int | None, typer.Option(min=2, help="clips of each folder at most, drawn by the seed")] = None,
    clips_per_video: Annotated[int, typer.Option(min=0, help="clips of a video at most; 0: all that fit")] = 1,
    start: Annotated[str, typer.Option(help="where clips lie in a video: first (frame on) or middle")] = "first",
    infinite: Annotated[bool, typer.Option("--infinite", help="extrapolate to infinitely many clips too")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of choice, interval, floor and extrapolation")] = 0,
    cache: Annotated[Path | None, typer.Option(help="folder for features: a killed command continues")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for all numbers")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if there is one")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="clips that go through the network at once")] = 4,
) -> None:
    """FVD and KVD between two folders of videos, with the floor, the counts and the protocol that they depend on.

    Example: `lisa-video eval fvd data/real samples --frames 16 --infinite --cache features --json fvd.json`
    """
    import torch

    from eval.distances.extractors.load import load_extractor
    from eval.distances.fvd import FVDSettings, run_fvd
    from eval.json_files import write_json
    from eval.report.fvd_text import result_lines
    from eval.videos import ClipProtocol

    if start not in ("first", "middle"):
        raise UserError(f"no start {start!r}", where="--start", remedy="use first or middle")
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no usable GPU", where=f"--device {device}", remedy="--device cpu")
    network = load_extractor(extractor, resize, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    protocol = ClipProtocol(frames, stride, clips_per_video or None, cast(Any, start))
    settings = FVDSettings(protocol, clips, infinite, seed, batch_size)
    result = run_fvd(real, fake, network, settings, cache=cache)
    for line in result_lines(result):
        typer.echo(line)
    if json_file is not None:
        write_json(json_file, result.to_json())
        typer.echo(f"numbers: {json_file}")
