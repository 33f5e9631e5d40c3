"""`lisa-video eval run`, `compare` and `sweep`: training runs, sampled and scored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lisa_video.errors import UserError

Clips = Annotated[int, typer.Option(min=2, help="held-out clips")]
Detectors = Annotated[
    list[str] | None,
    typer.Option(
        "--detector",
        help="keypoint_net, mediapipe, or a folder or YAML file of a detector; may be given several times",
        show_default="keypoint_net, and mediapipe where it is installed",
    ),
]
FVD = Annotated[bool, typer.Option("--fvd", help="FVD by I3D too: seconds a clip on a CPU")]
Overrides = Annotated[
    list[str] | None, typer.Option("--override", help="setting of the run to change, such as sampling.num_steps=50")
]
Processes = Annotated[int, typer.Option("--num-processes", "-n", min=1, help="that sample and search for poses")]


def run_command(
    run: Annotated[Path, typer.Argument(help="run_dir of a training run")],
    clips: Clips = 32,
    num_processes: Processes = 1,
    detector: Detectors = None,
    fvd: FVD = False,
    checkpoints: Annotated[str | None, typer.Option(help="steps such as 1000,2000, or all: score kept weights")] = None,
    override: Overrides = None,
) -> None:
    """Sample held-out clips of a run and score them: pose accuracy, Frechet distances, PSNR, held-out loss, pose gap.

    Goes on after a kill. All numbers are in a JSON file beside the clips, in RUN/eval.

    Example: `lisa-video eval run runs/quickstart/lisa --clips 32 -n 2`
    """
    from eval.experiments.checkpoints import chosen_steps, score_checkpoints
    from eval.report.tables import checkpoint_table, markdown_table
    from eval.runs.evaluation import Measures, evaluate
    from eval.runs.generate import GenerationJob

    job = GenerationJob(str(run), clips, overrides=tuple(override or ()))
    measures = Measures.chosen(tuple(detector or ()), fvd=fvd)
    if checkpoints is not None:
        steps = chosen_steps(run, [] if checkpoints == "all" else _whole_numbers(checkpoints, "--checkpoints"))
        typer.echo(checkpoint_table(score_checkpoints(job, steps, measures, num_processes)))
        return
    from eval.report.arms import ArmResult

    found = evaluate(job, measures, num_processes)
    typer.echo(markdown_table([ArmResult(run.resolve().name, found)]))
    typer.echo(f"{len(found.poses[0].clips)} clips; numbers: {job.folder}")


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="run_dirs, the baseline first")],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    clips: Clips = 32,
    num_processes: Processes = 1,
    detector: Detectors = None,
    fvd: FVD = False,
    override: Overrides = None,
) -> None:
    """Compare finished runs on the same held-out clips: one self-contained HTML page, with JSON and tables beside it.

    Runs that kept weights at the same steps (`training.export_every`) get learning curves and the speed-up too.

    Example: `lisa-video eval compare runs/quickstart/baseline runs/quickstart/lisa --out report.html`
    """
    from eval.experiments.checkpoints import compare_runs
    from eval.runs.evaluation import Measures

    names = [run.resolve().name for run in runs]
    named = [(name if names.count(name) == 1 else str(run), str(run)) for name, run in zip(names, runs, strict=True)]
    measures = Measures.chosen(tuple(detector or ()), fvd=fvd)
    compare_runs(named, out, measures=measures, num_clips=clips, num_processes=num_processes, overrides=override or [])
    typer.echo(f"report: {out}")


def sweep_command(
    runs: Annotated[list[Path], typer.Argument(help="run_dirs; those of one name are seeds of one arm")],
    setting: Annotated[
        list[str], typer.Option(help="of sampling, such as sampling.pose_guidance; several get the same value")
    ],
    values: Annotated[str, typer.Option(help="such as 1,2,3 or null,[1,20]; the others are compared with the first")],
    out: Annotated[Path, typer.Option(help="JSON of all numbers; pictures go beside it")] = Path("sweep.json"),
    clips: Clips = 32,
    num_processes: Processes = 1,
    detector: Detectors = None,
    fvd: FVD = False,
    override: Overrides = None,
) -> None:
    """Sample trained runs at several values of a sampling setting and score them: which value serves best?

    Example: `lisa-video eval sweep runs/quickstart/lisa --setting sampling.pose_guidance --values 1,2,3,5`
    """
    from eval.experiments.sweep import SweepJob, sweep, sweep_table, write_sweep
    from eval.experiments.sweep_figure import draw_sweep, show_sweep
    from eval.runs.evaluation import Measures

    job = SweepJob(tuple(setting), tuple(_split(values)), clips, tuple(override or ()))
    measures = Measures.chosen(tuple(detector or ()), fvd=fvd)
    arms: dict[str, list[str]] = {}
    for run in runs:
        arms.setdefault(run.resolve().name, []).append(str(run))
    found = sweep(arms, job, measures, num_processes)
    write_sweep(found, arms, job, measures, out)
    draw_sweep(found, job, out.with_suffix(".png"))
    sheet = out.with_name(f"{out.stem}-clips.png")
    show_sweep(next(iter(arms.values()))[0], job, measures, sheet)
    typer.echo(sweep_table(found, job))
    typer.echo(f"numbers: {out}; figure: {out.with_suffix('.png')}; clips of the first run: {sheet}")


def _split(values: str) -> list[str]:
    """At the commas that are not within brackets."""
    return re.split(r",(?![^\[]*\])", values)


def _whole_numbers(text: str, where: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{text!r} is no list of steps", where=where, remedy="write 1000,2000 or all") from None
