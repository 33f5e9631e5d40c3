"""`lisa-video data`: from a folder of videos to a data set. What is heavy is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from data_tools.build import Done

data_app = typer.Typer(
    no_args_is_help=True,
    help="Build a pose data set from a folder of videos. Exit status: 0 all is fine; 3 done, but files are in "
    "quarantine; 2 a mistake in the command, the settings or the machine.",
)

QUARANTINED = 3
"""Exit status of a command that went through, with files in the quarantine list."""

Videos = Annotated[Path, typer.Argument(help="folder of videos, with its sub-folders")]
Out = Annotated[Path, typer.Argument(help="folder of the data build")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="settings such as poses.detector.kind=rtmpose or filters.jitter=null")
]
Config = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="YAML file, see configs/data/; later ones go over earlier ones"),
]
EngineKind = Annotated[
    Literal["local", "ray"] | None, typer.Option("--engine", help="processes of this machine, or a Ray cluster")
]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="processes; default: one a core or GPU")]
Retry = Annotated[bool, typer.Option("--retry", help="try again what failed before")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


@data_app.command("build")
def build(
    videos: Videos,
    out: Out,
    overrides: Overrides = None,
    config: Config = None,
    engine: EngineKind = None,
    workers: Workers = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Do everything: probe, shots, poses, filter, manifest. Nothing that is done is done twice.

    The same command goes on after a kill, and works on new videos only.

    Example: `lisa-video data build videos data_set poses.detector.kind=mediapipe --workers 8`
    """
    _run("build", out, config, overrides, engine, workers, retry, as_json, videos)


@data_app.command("probe")
def probe(
    videos: Videos,
    out: Out,
    overrides: Overrides = None,
    config: Config = None,
    engine: EngineKind = None,
    workers: Workers = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """List the videos, and measure what each file holds: digest, codec, frames, rate, size.

    Example: `lisa-video data probe videos data_set`
    """
    _run("probe", out, config, overrides, engine, workers, retry, as_json, videos)


@data_app.command("shots")
def shots(
    out: Out,
    overrides: Overrides = None,
    config: Config = None,
    engine: EngineKind = None,
    workers: Workers = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Find where the camera cuts, and cut clips.

    Example: `lisa-video data shots data_set clips.max_frames=96`
    """
    _run("shots", out, config, overrides, engine, workers, retry, as_json)


@data_app.command("poses")
def poses(
    out: Out,
    overrides: Overrides = None,
    config: Config = None,
    engine: EngineKind = None,
    workers: Workers = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Find people and their poses in every clip, and measure its pictures.

    Example: `lisa-video data poses data_set poses.detector.device=cuda`
    """
    _run("poses", out, config, overrides, engine, workers, retry, as_json)


@data_app.command("filter")
def filter_clips(
    out: Out,
    overrides: Overrides = None,
    config: Config = None,
    engine: EngineKind = None,
    workers: Workers = None,
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Judge every clip by the rules; quick, as nothing is decoded.

    Example: `lisa-video data filter data_set --config configs/data/filters_strict.yaml`
    """
    _run("filter", out, config, overrides, engine, workers, retry, as_json)


@data_app.command("manifest")
def manifest(out: Out, overrides: Overrides = None, config: Config = None, as_json: Json = False) -> None:
    """Write the data set of all clips that were kept, split by video, and the table of what became of every second.

    Example: `lisa-video data manifest data_set manifest.val_fraction=0.1`
    """
    _run("manifest", out, config, overrides, None, None, False, as_json)


@data_app.command("cache")
def cache(
    out: Annotated[Path, typer.Argument(help="folder of any data set: a manifest.jsonl, and what it names")],
    run: Annotated[Path, typer.Option(help="config of the training run that will read the cache")],
    overrides: Overrides = None,
    num_processes: Annotated[int, typer.Option("--num-processes", "-n", min=1, help="one a GPU")] = 1,
    full: Annotated[bool, typer.Option("--float32", help="twice the size; float16 else")] = False,
) -> None:
    """Encode the training clips once, for `data.cache=OUT/cache`; only what is missing is made.

    Example: `lisa-video data cache data_set --run configs/svd_pose_lisa.yaml`
    """
    from data_tools.cache import build_cache
    from lisa_video.config.load import load_config

    config = load_config(run, [f"data.manifest={out / 'manifest.jsonl'}", *(overrides or ())])
    done = build_cache(config, out / "cache", dtype="float32" if full else "float16", num_processes=num_processes)
    for clip_id, reason in done.broken.items():
        typer.echo(f"left out {clip_id}: {reason}", err=True)
    typer.echo(f"{done.made} clips encoded, {done.there} there already, {done.left_out} too short or too small")
    typer.echo(f"{done.num_bytes / 2**20:,.1f} MiB; train with data.cache={out / 'cache'}")
    raise typer.Exit(QUARANTINED if done.broken else 0)


@data_app.command("doctor")
def doctor(
    out: Annotated[Path, typer.Argument(help="folder of any data set: a manifest.jsonl, and what it names")],
    overrides: Overrides = None,
    config: Config = None,
    run: Annotated[Path | None, typer.Option(help="config of a training run to predict for")] = None,
    ranks: Annotated[int, typer.Option(min=1, help="processes of that run")] = 1,
    workers: Workers = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds that one clip may take")] = 600,
    digests: Annotated[bool, typer.Option(help="compare the bytes of every video with the manifest")] = True,
) -> None:
    """Decode every clip once, check it against its keypoints, and write a report: OUT/doctor/doctor.html.

    Exit status: 0 healthy, 3 problems found.

    Example: `lisa-video data doctor data_set --run configs/svd_pose_lisa.yaml --ranks 8`
    """
    from data_tools.build import SETTINGS_NAME
    from data_tools.doctor.run import run_doctor
    from data_tools.settings import BuildSettings
    from lisa_video.config.load import load_config, load_settings

    files = [out / SETTINGS_NAME] if (out / SETTINGS_NAME).is_file() else []
    limits = load_settings(BuildSettings, [*files, *(config or ())], overrides or ()).filters
    training = None if run is None else load_config(run)
    diagnosis = run_doctor(
        out,
        limits=limits,
        data=None if training is None else training.data,
        training=None if training is None else training.training,
        ranks=ranks,
        workers=workers,
        timeout_s=timeout,
        check_bytes=digests,
    )
    typer.echo(diagnosis.headline)
    typer.echo(f"report: {diagnosis.page}")
    raise typer.Exit(QUARANTINED if diagnosis.problems else 0)


def _run(
    command: str,
    out: Path,
    config: list[Path] | None,
    overrides: list[str] | None,
    engine: str | None,
    workers: int | None,
    retry: bool,
    as_json: bool,
    videos: Path | None = None,
) -> None:
    from data_tools.build import SETTINGS_NAME, run_command
    from data_tools.settings import BuildSettings
    from lisa_video.config.load import load_settings

    files = list(config or ())
    if command != "build" and (out / SETTINGS_NAME).is_file():
        files.insert(0, out / SETTINGS_NAME)  # a single step goes on with the settings of the steps before
    options = {"engine.kind": engine, "engine.workers": workers}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    settings = load_settings(BuildSettings, files, [*(overrides or ()), *given])
    done = run_command(command, out, settings, videos=videos, retry=retry)
    if as_json:
        typer.echo(done.to_json())
    else:
        _report(done, out)
    raise typer.Exit(QUARANTINED if done.quarantined else 0)


def _report(done: Done, out: Path) -> None:
    """What people want to read in the end."""
    from data_tools.table import print_accounts

    ran = ", ".join(f"{step} {number}" for step, number in done.tasks.items() if number)
    if done.tasks:
        typer.echo(f"worked on: {ran}" if ran else "nothing to do: all is as it was")
    if done.ignored:
        typer.echo(f"{done.ignored} files or folders match sources.ignore and were not looked at")
    if done.accounts is not None:
        print_accounts(done.accounts)
        typer.echo(f"data set: {out / 'manifest.jsonl'}")
    if done.quarantined:
        typer.echo(
            f"{done.quarantined} files or parts of files could not be used; {out / 'quarantine.jsonl'} says why, and "
            "what to do about each. Mend or remove them and run the same command again."
        )
