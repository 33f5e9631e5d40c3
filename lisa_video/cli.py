"""The `lisa-video` command. Each sub-command imports what it needs only when it runs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from data_tools.cli import data_app
from eval.cli_frames import frames_command
from eval.cli_fvd import fvd_command
from eval.cli_pose import pose_command
from eval.cli_runs import compare_command, run_command, sweep_command
from lisa_video.errors import UserError

app = typer.Typer(
    name="lisa-video",
    help="Pose-guided video generation: a temporal ControlNet trained with Likelihood Score Alignment (LISA).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)
eval_app = typer.Typer(no_args_is_help=True, help="Evaluate trained runs.")
app.add_typer(eval_app, name="eval")
eval_app.command("run")(run_command)
eval_app.command("compare")(compare_command)
eval_app.command("sweep")(sweep_command)
eval_app.command("fvd")(fvd_command)
eval_app.command("pose")(pose_command)
eval_app.command("frames")(frames_command)
app.add_typer(data_app, name="data")

_DETECTOR = str(Path(__file__).parent / "assets" / "keypoint_net")
_KEYPOINT_STEPS = 3600  # of the embedded detector

Detector = Annotated[str, typer.Option(help="folder of a keypoint network", show_default="the embedded one")]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings such as optimizer.lr=1e-5 or lisa=null")]
Processes = Annotated[int, typer.Option("--num-processes", "-n", min=1, help="processes: one a GPU, or CPU ranks")]


@app.command("demo-data")
def demo_data(
    out: Annotated[Path, typer.Argument(help="folder of the data set; its manifest is OUT/manifest.jsonl")],
    clips: Annotated[int, typer.Option(min=1, help="number of clips, training and held-out together")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same clips")] = 0,
    size: Annotated[int, typer.Option(help="side of the square frames, pixels")] = 64,
    workers: Annotated[int | None, typer.Option(min=1, help="rendering processes; default: all cores")] = None,
) -> None:
    """Render human figures moved by real motion capture: H.264 clips with exact keypoints.

    A killed run continues; clip i is the same whatever the number of clips.

    Example: `lisa-video demo-data runs/demo --clips 300 --seed 0`
    """
    from data_tools.demo.generate import generate_demo_data

    manifest = generate_demo_data(out, clips=clips, seed=seed, size=size, workers=workers)
    typer.echo(f"manifest: {manifest}")


@app.command("pretrain-demo")
def pretrain_demo(
    manifest: Annotated[Path, typer.Argument(help="manifest of a demo data set")],
    out: Annotated[Path, typer.Argument(help="folder of the checkpoint")],
    stage: Annotated[str, typer.Option(help="base (VAE and UNet) or keypoints (detector)")] = "base",
    steps: Annotated[int | None, typer.Option(min=1, help="steps of the UNet or of the detector")] = None,
) -> None:
    """Train the embedded tiny base, or the keypoint detector, from demo data alone.

    Killed runs of the base continue.

    Example: `lisa-video pretrain-demo runs/demo/manifest.jsonl runs/tiny_svd`
    """
    from dataclasses import replace

    if stage == "keypoints":
        from lisa_video.pretraining.keypoints import train_keypoint_net

        train_keypoint_net(manifest, out, steps=steps or _KEYPOINT_STEPS, bf16=True)
    elif stage == "base":
        from lisa_video.pretraining.demo import DemoRecipe, pretrain_demo

        recipe = DemoRecipe() if steps is None else replace(DemoRecipe(), base_steps=steps)
        pretrain_demo(manifest, out, recipe)
    else:
        raise UserError(f"no stage {stage!r}", where="--stage", remedy="use base or keypoints")
    typer.echo(f"weights: {out}")


@app.command("train")
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/")],
    overrides: Overrides = None,
    num_processes: Processes = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print and check the resolved config only")] = False,
) -> None:
    """Train a side branch under the `deepspeed` launcher; the same command again resumes.

    Example: `lisa-video train configs/svd_pose_lisa.yaml --num-processes 8 data.manifest=clips/manifest.jsonl`
    """
    from lisa_video.launch import launch_training

    raise typer.Exit(launch_training(config, overrides or [], num_processes, dry_run=dry_run))


@app.command("plan")
def plan(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs over all machines")] = 1,
    gpu_memory: Annotated[float | None, typer.Option(min=1, help="of one GPU, in GB (10^9 bytes)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, in bytes, for programs")] = False,
    remedies: Annotated[bool, typer.Option(help="also try smaller settings, if it does not fit")] = True,
) -> None:
    """Predict the memory of a run on each GPU, for each ZeRO stage. Needs neither weights nor data nor a GPU.

    Exit status 1: the run does not fit as configured.

    Example: `lisa-video plan configs/svd_pose_lisa.yaml --gpus 8 --gpu-memory 80`
    """
    import json

    from lisa_video.config.load import load_config
    from lisa_video.planning.plan import plan_run
    from lisa_video.planning.plan import remedies as find_remedies

    gpu_bytes = None if gpu_memory is None else int(gpu_memory * 1e9)
    planned = plan_run(load_config(config, overrides or []), gpus, gpu_bytes, count_flops=True)
    found = find_remedies(planned) if planned.fits is False and remedies else []
    if as_json:
        typer.echo(json.dumps({**planned.as_json(), "remedies": found}, indent=1))
    else:
        typer.echo(planned.as_text())
        for setting, saved in found[:5]:
            typer.echo(f"  {saved / 1e9:6.1f} GB less with {setting}")
    raise typer.Exit(1 if planned.fits is False else 0)


@app.command("export")
def export(
    run: Annotated[Path, typer.Argument(help="run_dir of a training run")],
    out: Annotated[Path, typer.Argument(help="new folder")],
    step: Annotated[int | None, typer.Option(min=1, help="kept weights of a step; default: the newest")] = None,
) -> None:
    """Write the side branch of a run as one folder: diffusers layout, conditioning contract, model card.

    docs/using_a_branch.md has a script that samples with it.

    Example: `lisa-video export runs/quickstart/lisa my_branch`
    """
    from lisa_video.export import export_branch

    export_branch(run, out, step)
    typer.echo(f"wrote {out}: weights, contract.json, and README.md, the model card; read its part on licences")


@app.command("sample")
def sample(
    run: Annotated[Path, typer.Argument(help="run_dir of a training run")],
    out: Annotated[Path, typer.Argument(help="mp4 file to write")],
    reference: Annotated[Path, typer.Option(help="picture, or video whose first frame is taken")],
    pose: Annotated[Path, typer.Option(help="driving video, or keypoint file (.npz)")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    detector: Detector = _DETECTOR,
    fps: Annotated[float, typer.Option(min=1, help="frames per second of a keypoint file; videos know their own")] = 12,
    override: Annotated[list[str] | None, typer.Option(help="setting such as sampling.pose_guidance=2")] = None,
) -> None:
    """Make a video of the reference person that follows the driving pose.

    Example: `lisa-video sample runs/quickstart/lisa out.mp4 --reference a.mp4 --pose b.mp4`
    """
    from lisa_video.sample import sample_video

    sample_video(
        run,
        out,
        reference=reference,
        pose=pose,
        seed=seed,
        detector=detector,
        keypoints_fps=fps,
        overrides=override or [],
    )
    typer.echo(f"wrote {out}")


@app.command("quickstart")
def quickstart(
    out: Annotated[Path, typer.Argument(help="folder for everything")] = Path("runs/quickstart"),
    num_processes: Processes = 2,
    clips: Annotated[int, typer.Option(min=20, help="demo clips to render")] = 320,
    steps: Annotated[int | None, typer.Option(min=1, help="training steps of each arm")] = None,
    eval_clips: Annotated[int, typer.Option(min=4, help="held-out clips to score")] = 32,
) -> None:
    """The whole in one command: data, baseline and LISA training, sampling, scores, report.

    A killed run continues where it stopped.

    Example: `lisa-video quickstart runs/quickstart`
    """
    from lisa_video.quickstart import run_quickstart

    run_quickstart(out, num_processes=num_processes, clips=clips, steps=steps, eval_clips=eval_clips)


@eval_app.command("benchmark")
def benchmark(
    config: Annotated[Path, typer.Argument(help="YAML file of an experiment, see configs/benchmark/")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the experiment such as seeds=[0]")] = None,
    manifest: Annotated[
        str | None, typer.Option(help="data set of all arms", show_default="the one that its run config names")
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            help="stop after inputs, train, sample (these want a GPU), score, or report; the same command goes on"
        ),
    ] = "report",
) -> None:
    """Train arms over several seeds, score their kept checkpoints, and write one report; goes on after a kill.

    Data and frozen base are made first, if the experiment says how and they are not there.

    Example: `lisa-video eval benchmark configs/benchmark/small_trainer.yaml`
    """
    from eval.experiments.benchmark import STAGES, load_benchmark, run_benchmark
    from lisa_video.benchmark_inputs import prepare_inputs

    if stage not in STAGES:
        raise UserError(f"no stage {stage!r}", where="--stage", remedy=f"use one of {', '.join(STAGES)}")
    experiment = load_benchmark(config, overrides or [])
    found = prepare_inputs(experiment, manifest)
    report = None if stage == "inputs" else run_benchmark(experiment, manifest=found, last_stage=cast(Any, stage))
    if report is None:
        typer.echo(f"stopped after: {stage}")
        return
    typer.echo(report.with_name("benchmark.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {report}; numbers: {report.with_name('benchmark.json')}")


def main() -> None:
    """Entry point: users' mistakes are one message and status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "deepspeed", "DeepSpeed", "diffusers", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
