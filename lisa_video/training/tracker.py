"""An experiment tracker beside `metrics.jsonl`, if one is asked for: Weights & Biases or trackio, not installed by us.

trackio offers the part of W&B's interface that is used here, so one class serves both.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any, final

from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError


@final
class Tracker:
    """A run of a tracker; the same run again when training is resumed. Project: the parent folder's name.

    Args:
        name: of the package, wandb or trackio. Its own environment variables (WANDB_MODE=offline, ...) hold.
        run_dir: of the run; its name is the run's.
        config: kept with the run.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, name: str, run_dir: Path, config: RunConfig) -> None:
        try:
            self._module: Any = importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"{name} is not installed ({error})",
                where="diagnostics.tracker",
                remedy=f"pip install {name}, or set diagnostics.tracker=null",
            ) from error
        place = run_dir.absolute()
        told: dict[str, Any] = {"project": place.parent.name, "name": place.name, "resume": "allow"}
        if name == "wandb":
            told |= {"id": hashlib.sha256(str(place).encode()).hexdigest()[:16], "dir": str(run_dir)}
        self._module.init(config=config.model_dump(mode="json"), **told)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log numbers of a step."""
        self._module.log(values, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._module.finish()
