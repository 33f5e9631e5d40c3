"""`make quickstart`: from nothing to a LISA-against-baseline report, resumable at every stage."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from data_tools.demo.generate import generate_demo_data
from eval.experiments.compare import compare
from eval.runs.evaluation import Measures
from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.launch import launch_training

CONFIG = Path("configs/quickstart.yaml")
ARMS = {"baseline": ["lisa=null"], "lisa": []}  # nothing else differs
_NOTE = (
    "A demonstration at toy scale: rendered figures of 64 pixels, a frozen base of some five million parameters, a "
    "few minutes of training on CPU cores, one seed. It shows that the whole chain works and how the two arms are "
    "compared; it neither proves nor disproves the published gain, which was measured on a base a thousand times "
    "larger."
)


def run_quickstart(
    out: Path,
    *,
    num_processes: int,
    clips: int,
    steps: int | None,
    eval_clips: int,
    seed: int = 0,
    config: Path = CONFIG,
) -> Path:
    """Render data, train both arms, score them, write the report, and say what was found.

    Every stage continues or is skipped if a killed run had got that far.

    Args:
        out: folder of everything.
        num_processes: ranks of training, and processes of sampling.
        clips: demo clips.
        steps: training steps of each arm; None: as in the config.
        eval_clips: held-out clips that are scored.
        seed: of data and training.
        config: of the LISA arm.

    Returns:
        The report.

    Raises:
        UserError: a stage failed.
    """
    if not config.is_file():
        raise UserError("no such file", where=config, remedy="run the quickstart in the checkout of lisa_video")
    typer.echo(f"1/3 demo data: {clips} clips")
    manifest = generate_demo_data(out / "data", clips=clips, seed=seed)
    for number, (arm, difference) in enumerate(ARMS.items(), start=1):
        typer.echo(f"2/3 training, arm {number} of {len(ARMS)}: {arm}")
        overrides = [f"run_dir={out / arm}", f"data.manifest={manifest}", f"seed={seed}", *difference]
        if steps is not None:
            overrides.append(f"training.max_steps={steps}")
        if _is_finished(load_config(config, overrides)):
            continue
        if status := launch_training(config, overrides, num_processes):
            raise UserError(f"training ended with status {status}", where=out / arm, remedy="see the messages above")
    typer.echo(f"3/3 sampling and scoring {eval_clips} held-out clips: baseline, lisa, no control")
    report = compare(
        [("Baseline", str(out / "baseline")), ("LISA", str(out / "lisa"))],
        out / "report.html",
        measures=Measures.chosen(),
        num_clips=eval_clips,
        num_processes=num_processes,
        note=_NOTE,
    )
    numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    typer.echo("")
    typer.echo(numbers["headline"])
    for remark in numbers["remarks"]:
        typer.echo(f"- {remark}")
    typer.echo(f"report: {report}")
    return report


def _is_finished(config: RunConfig) -> bool:
    """Whether a run with exactly these settings is done, so that nothing has to be started to find out."""
    saved, done = (Path(config.run_dir) / name for name in ("config.yaml", "done.json"))
    if not (saved.is_file() and done.is_file()) or load_config(saved) != config:
        return False
    step: int = json.loads(done.read_text(encoding="utf-8"))["step"]
    return step == config.training.max_steps
