"""`lisa-video eval frames`: frames of generated videos against those of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lisa_video.errors import UserError

if TYPE_CHECKING:
    from eval.frame_metrics.frames import FrameReport
    from eval.frame_metrics.metric import FrameMetric


def frames_command(
    real: Annotated[Path, typer.Argument(help="folder of real videos")],
    generated: Annotated[Path, typer.Argument(help="folder of generated videos by the same names")],
    frames: Annotated[int | None, typer.Option(min=1, help="frames of a clip at most; default: all")] = None,
    stride: Annotated[int, typer.Option(min=1, help="take every so many-th frame")] = 1,
    lpips_backbone: Annotated[
        Path | None, typer.Option(help="torchvision's ImageNet weights, such as alexnet-owt-7be5be79.pth: adds LPIPS")
    ] = None,
    lpips_net: Annotated[str, typer.Option(help="alex, vgg or squeeze: whose weights these are")] = "alex",
    fid_network: Annotated[
        Path | None, typer.Option(help="TorchScript Inception, such as inception-2015-12-05.pt: adds FID over frames")
    ] = None,
    identity_model: Annotated[
        Path | None, typer.Option(help="ONNX network that embeds faces or people: adds identity similarity")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="folder for numbers of clips: a killed command continues")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for all numbers, clip by clip too")] = None,
    device: Annotated[str, typer.Option(help="for networks: cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="of the intervals")] = 0,
) -> None:
    """Compare self-driven videos with the real ones frame by frame: PSNR, SSIM, MS-SSIM, flicker, warping error.

    LPIPS, FID over frames and identity need network files, which are never downloaded.

    Example: `lisa-video eval frames clips/videos samples --json frames.json`
    """
    from eval.frame_metrics.frames import score_frames
    from eval.json_files import write_json
    from lisa_video.pose.detectors.devices import require_device

    place = require_device(device)
    metrics = _metrics(lpips_backbone, lpips_net, identity_model, str(place))
    fid = None
    if fid_network is not None:
        from eval.frame_metrics.frechet_frames import FrameFrechet

        fid = FrameFrechet(fid_network, place)
    report = score_frames(real, generated, metrics, fid, max_frames=frames, stride=stride, seed=seed, cache=cache)
    for line in _lines(report):
        typer.echo(line)
    if json_file is not None:
        write_json(json_file, report.to_json())
        typer.echo(f"numbers: {json_file}")


def _metrics(backbone: Path | None, net: str, identity: Path | None, device: str) -> list[FrameMetric]:
    from eval.frame_metrics.fidelity import PSNR, SSIM, MultiScaleSSIM
    from eval.frame_metrics.identity import IdentitySimilarity, OnnxEmbedder
    from eval.frame_metrics.motion import Flicker, WarpingError
    from eval.frame_metrics.perceptual import LPIPS, PUBLISHED

    if net not in PUBLISHED:
        raise UserError(f"no backbone {net!r}", where="--lpips-net", remedy=f"use {', '.join(PUBLISHED)}")
    metrics: list[FrameMetric] = [PSNR(), SSIM(), MultiScaleSSIM()]
    metrics += [LPIPS(backbone, cast(Any, net), device)] if backbone is not None else []
    metrics += [Flicker(), WarpingError()]
    metrics += [IdentitySimilarity(OnnxEmbedder(identity, device))] if identity is not None else []
    return metrics


def _lines(report: FrameReport) -> Iterator[str]:
    from eval.report.text_table import aligned, number_cell, protocol_lines

    yield "Generated frames against those of the real clip"
    yield f"  protocol {report.protocol_id}, {len(report.clips)} clips"
    arrows = {"higher": "↑", "lower": "↓", "neither": ""}
    rows = [["", "mean [95 %]"]]
    for column in report.columns:
        rows.append([f"{column.label} {arrows[column.better]}", number_cell(report.means[column.key], column.digits)])
    if report.fid is not None:
        rows.append(["FID over frames ↓", f"{report.fid['fid']:.3f}"])
        rows.append(["FID of one half of the real clips from the other", f"{report.fid['fid_floor']:.3f}"])
    yield from aligned(rows)
    yield "  protocol, spelled out:"
    yield from protocol_lines(report.protocol)
    yield from (f"left out: {metric}: {reason}" for metric, reason in report.omitted)
    yield from (f"skipped {name}: {reason}" for name, reason in report.skipped)
    yield from (f"note: {note}" for note in report.notes)
