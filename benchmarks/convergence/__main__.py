"""`python -m benchmarks.convergence`: how fast do arms learn the pose? Thousands of steps in minutes on one GPU.

It reads the experiments of `lisa-video eval benchmark` (`configs/benchmark/*.yaml`) and trains their arms in a `Race`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm

from benchmarks.convergence.compare import Side, compare
from benchmarks.convergence.differences import Line, write_differences
from benchmarks.convergence.examine import Examiner
from benchmarks.convergence.overview import write_overview
from benchmarks.convergence.race import SHARED, Arm, Race
from benchmarks.convergence.records import FLOOR, Records
from benchmarks.convergence.results import write_results
from eval.experiments.benchmark import BenchmarkConfig, load_benchmark
from lisa_video.config.load import load_config
from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.models.build import build_backbone
from lisa_video.pose.detectors.keypoint_net import KeypointNetDetector
from lisa_video.pretraining.clips_in_memory import load_clips
from lisa_video.pretraining.draws import Draws

app = typer.Typer(no_args_is_help=True, add_completion=False)
_DETECTOR = Path("lisa_video/assets/keypoint_net")

Manifest = Annotated[
    str | None, typer.Option(help="data set of all arms", show_default="the one that the run config names")
]


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="YAML file, see configs/benchmark/")],
    manifest: Manifest = None,
    seed: Annotated[int, typer.Option(help="of training; run several side by side")] = 0,
    arm: Annotated[list[str] | None, typer.Option(help="only these arms; calls for others may run beside it")] = None,
    seconds: Annotated[float | None, typer.Option(help="stop at the last checkpoint before")] = None,
    override: Annotated[list[str] | None, typer.Option(help="setting of all arms")] = None,
) -> None:
    """Train the arms of an experiment with one seed and examine them at its checkpoints.

    A finished arm is left alone, an unfinished one begins again. What a stopped call has examined can be scored.
    Data and frozen base must be there: `lisa-video eval benchmark EXPERIMENT --stage inputs` makes them.

    Example: `python -m benchmarks.convergence train configs/benchmark/standard.yaml --seed 1`
    """
    settings = load_benchmark(experiment)
    records = Records(Path(settings.out) / f"seed-{seed}")
    configs = _arms(settings, manifest, seed, override or [])
    names = [name for name in _known(arm or list(configs), configs) if not records.finished(name)]
    if not names:
        typer.echo(f"{records.folder}: done already")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    first = next(iter(configs.values()))
    parts = build_backbone(first.backbone)
    parts.backbone.to(device)
    parts.codec.to(device)
    started = time.perf_counter()
    clips = load_clips(first.data, "train", parts.codec, device)
    held_out = load_clips(first.data, "val", parts.codec, device, settings.eval_clips)
    measured = load_config(Path(settings.base), _common(settings, manifest, seed, override or []))
    examiner = Examiner(measured, parts, held_out, KeypointNetDetector.from_pretrained(_DETECTOR, device))
    arms = {name: Arm(configs[name], parts, device) for name in names}
    races = _races(arms, lambda config: Draws(config, parts, clips, seed))
    for name in names:
        records.forget(name)
    records.keep(FLOOR, 0, examiner(None), held_out.ids)
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "trained_together": names,
        "overrides": override or [],
    }
    steps, trained, out_of_time = 0, 0.0, False
    total, every = first.training.max_steps, -(-first.training.max_steps // settings.checkpoints)
    with tqdm(total=total * len(races), desc=f"seed {seed}", unit="step") as bar:
        while steps < total and not out_of_time:
            count, before = min(every, total - steps), time.perf_counter()
            for race in races:
                race.steps(count, bar.update)
            trained += time.perf_counter() - before
            steps += count
            found = {name: examiner(of) for name, of in arms.items()}
            now = time.perf_counter()
            out_of_time = seconds is not None and now - started + (now - before) > seconds
            progress = {"steps": steps, "finished": steps == total or out_of_time, "seconds": round(trained, 1)}
            for name, of in arms.items():
                records.keep(name, steps, found[name], held_out.ids)
                with of.averaged() as branch:
                    records.keep_weights(name, steps, branch, configs[name], parts)
                records.add_losses(name, steps, _losses(of))
                run = configs[name].model_dump(mode="json", exclude={"run_dir": True, "data": {"manifest"}})
                records.write_facts(name, {**progress, **facts, "run": run})


@app.command()
def results(
    experiment: Annotated[Path, typer.Argument(help="YAML file of a trained experiment")],
    out: Annotated[Path, typer.Option(help="JSON of all numbers")],
    manifest: Manifest = None,
    figure: Annotated[Path | None, typer.Option(help="PNG of the curves; default: beside the numbers")] = None,
    skip: Annotated[
        int, typer.Option(min=0, help="leave out the first held-out clips, say those that chose an arm")
    ] = 0,
    seed: Annotated[list[int] | None, typer.Option(help="only these, say those that went further")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="only these arms, say those that all seeds have")] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="the last samples by further measures too: FVD, other detectors")
    ] = False,
) -> None:
    """Score what `train` kept: learning curves over seeds and clips, and how much sooner each arm gets there.

    Example: `... results configs/benchmark/standard.yaml --samples --out benchmarks/results/standard.json`
    """
    settings = load_benchmark(experiment)
    chosen = {name: settings.arms[name] for name in _known(arm or list(settings.arms), settings.arms)}
    settings = settings.model_copy(update={"arms": chosen})
    manifest = manifest or load_config(Path(settings.base), settings.overrides).data.manifest
    write_results(settings, manifest, out, figure or out.with_suffix(".png"), skip, seed, samples)


@app.command("compare")
def compare_files(
    baseline: Annotated[Path, typer.Argument(help="JSON that `results` wrote")],
    baseline_arm: Annotated[str, typer.Argument(help="one of its arms")],
    file: Annotated[Path, typer.Argument(help="another, or the same")],
    arm: Annotated[str, typer.Argument(help="one of its arms")],
    out: Annotated[Path | None, typer.Option(help="JSON of the same numbers")] = None,
) -> None:
    """How many times fewer steps an arm needs than one of an earlier race, whose records may be gone.

    Example: `... compare benchmarks/results/convergence_small_long_cpu.json plain_open runs/new/results.json my_arm`
    """
    compare(Side.read(baseline, baseline_arm), Side.read(file, arm), out)


@app.command("draw")
def draw_files(
    out: Annotated[Path, typer.Argument(help="PNG")],
    arms: Annotated[list[str], typer.Argument(help="each as FILE:ARM or FILE:ARM:NAME; the first is the baseline")],
) -> None:
    """Draw arms of several results into one figure.

    Example: `... draw runs/all.png benchmarks/results/convergence_small_long_cpu.json:plain_open runs/new.json:my_arm`
    """
    sides: dict[str, Side] = {}
    for given in arms:
        file, *rest = given.split(":")
        if len(rest) not in (1, 2):
            raise UserError("not of the form FILE:ARM or FILE:ARM:NAME", where=given, remedy="name an arm of the file")
        if rest[-1] in sides:
            raise UserError(f"a second arm named {rest[-1]}", where=given, remedy="give it a name: FILE:ARM:NAME")
        sides[rest[-1]] = Side.read(Path(file), rest[0])
    write_overview(sides, out)


@app.command("draw-differences")
def draw_differences(
    out: Annotated[Path, typer.Argument(help="PNG")],
    lines: Annotated[list[str], typer.Argument(help="each a FILE, or FILE:BASELINE:ARM:LABEL")],
) -> None:
    """Draw by how much arms are ahead in the end, one line an arm: a FILE's all over its first, or those named.

    Example: `... draw-differences runs/parts.png benchmarks/results/convergence_small_bases_cpu.json`
    """
    write_differences([line for given in lines for line in Line.parse(given)], out)


def _arms(settings: BenchmarkConfig, manifest: str | None, seed: int, overrides: list[str]) -> dict[str, RunConfig]:
    """Configs by name, as `lisa-video eval benchmark` makes them.

    Raises:
        UserError: the arms differ in something that arms of a race share.
    """
    common = _common(settings, manifest, seed, overrides)
    configs = {name: load_config(Path(settings.base), [*common, *arm]) for name, arm in settings.arms.items()}
    first = next(iter(configs.values()))
    for name, config in configs.items():
        for section in SHARED:
            if _shared(config, section) != _shared(first, section):
                raise UserError(
                    f"differs from the first arm in {section}, which arms of a race share",
                    where=f"arms.{name}",
                    remedy="make it an experiment of its own, or train it with `lisa-video eval benchmark`",
                )
    return configs


def _common(settings: BenchmarkConfig, manifest: str | None, seed: int, overrides: list[str]) -> list[str]:
    """Overrides of all arms, before each one's own."""
    data = [] if manifest is None else [f"data.manifest={manifest}"]
    return [*settings.overrides, *overrides, *data, f"seed={seed}"]


def _shared(config: RunConfig, section: str) -> dict[str, Any]:
    values: dict[str, Any] = getattr(config, section).model_dump()
    values.pop("zero_stage", None)  # there is nothing to split in a race
    return values


def _known(names: list[str], configs: Mapping[str, Any]) -> list[str]:
    for name in names:
        if name not in configs:
            raise UserError("no such arm", where=f"--arm {name}", remedy=f"one of: {', '.join(configs)}")
    return names


def _races(arms: dict[str, Arm], draw: Callable[[RunConfig], Draws]) -> list[Race]:
    """A race for each way to draw noise levels and to drop conditions; all have the same clips and noise."""
    alike: dict[str, dict[str, Arm]] = {}
    for name, arm in arms.items():
        drawn = arm.config.model_dump_json(include={"noise", "conditioning"})
        alike.setdefault(drawn, {})[name] = arm
    return [Race(draw(next(iter(group.values())).config), group) for group in alike.values()]


def _losses(arm: Arm) -> dict[str, float]:
    """Means since the last checkpoint."""
    *sums, count = arm.sums.tolist()
    arm.sums.zero_()
    return {name: value / count for name, value in zip(("denoising", "lisa", "residual"), sums, strict=True)}


if __name__ == "__main__":
    app()
