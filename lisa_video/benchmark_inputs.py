"""What a benchmark starts from: its data set and its frozen base, made if they are not there."""

from __future__ import annotations

from pathlib import Path

import typer

from data_tools.demo.generate import MANIFEST_NAME, generate_demo_data
from eval.experiments.benchmark import BenchmarkConfig
from lisa_video.config.load import load_config
from lisa_video.errors import UserError
from lisa_video.pretraining.frozen_base import train_frozen_base


def prepare_inputs(config: BenchmarkConfig, manifest: str | None = None) -> str:
    """Render the data and train the base that the experiment asks for; what is there already is left alone.

    Args:
        config: the experiment; without `inputs` nothing is made.
        manifest: a data set of the user's own; None takes the one that the run config names.

    Returns:
        The manifest.

    Raises:
        UserError: data or base that is there is another one.
    """
    own = [] if manifest is None else [f"data.manifest={manifest}"]
    run = load_config(Path(config.base), [*config.overrides, *own])
    if config.inputs is None:
        return run.data.manifest
    if manifest is None:
        folder, wanted = Path(run.data.manifest).parent, config.inputs
        if Path(run.data.manifest).name != MANIFEST_NAME:
            raise UserError(
                f"demo data has a {MANIFEST_NAME}, not this", where=run.data.manifest, remedy="correct data.manifest"
            )
        typer.echo(f"inputs: {wanted.clips} demo clips in {folder}")
        generate_demo_data(folder, clips=wanted.clips, seed=wanted.seed)
    if (base := config.inputs.frozen_base) is not None:
        network = f"{base.size}, {base.layers_per_block} layers a block"
        typer.echo(f"inputs: frozen base in {run.backbone.path}: {network}, {base.steps} steps of {base.batch} clips")
        train_frozen_base(run, base)
    return run.data.manifest
