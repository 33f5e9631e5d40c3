"""The folder of a run: one config for all its starts."""

from __future__ import annotations

import os
from pathlib import Path

from lisa_video import distributed
from lisa_video.config.load import dump_config, load_config
from lisa_video.config.schema import DataConfig, RunConfig
from lisa_video.data.cache import ClipCache
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError

_CONFIG = "config.yaml"
# What may change when a run is resumed: how long it goes on, what is looked at on the way, and how the clips of a step
# are shared out (for another number of ranks).
_FREE = tuple(
    f"training.{key}"
    for key in (
        *("max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every", "async_checkpoints"),
        *("export_every", "max_nonfinite", "watchdog_seconds", "micro_batch_size", "gradient_accumulation"),
    )
)
_FREE_SECTIONS = ("preview.", "sampling.", "diagnostics.", "data.num_workers", "run_dir")


def check_unchanged(run_dir: Path, config: RunConfig) -> None:
    """Check that a run that was started before goes on with the same settings.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    saved = run_dir / _CONFIG
    differing = differences(load_config(saved), config) if saved.is_file() else []
    if differing:
        raise UserError(
            f"the run was started with other settings: {'; '.join(differing)}",
            where=saved,
            remedy="use another run_dir, or the settings of the first start",
        )


def claim_run_dir(run_dir: Path, config: RunConfig) -> None:
    """Save the resolved config, once all else is known to be right: from now on it must stay as it is.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    check_unchanged(run_dir, config)
    saved = run_dir / _CONFIG
    distributed.barrier()
    if distributed.is_main():
        run_dir.mkdir(parents=True, exist_ok=True)
        draft = saved.with_suffix(".tmp")
        draft.write_text(dump_config(config), encoding="utf-8")
        os.replace(draft, saved)
    distributed.barrier()


def data_digests(data: DataConfig) -> dict[str, str | None]:
    """What a checkpoint notes of the data: contents that may change while their path stays."""
    cache = None if data.cache is None else ClipCache(data.cache).facts.identity
    return {"manifest": file_digest(data.manifest), "cache": cache}


def check_same_data(before: dict[str, str | None], now: dict[str, str | None], data: DataConfig) -> None:
    """Check that a run goes on with the data that its checkpoint was made of.

    Raises:
        UserError: the manifest or the cache has other content: the order of clips, or the clips, would be others.
    """
    for name, place in (("manifest", data.manifest), ("cache", data.cache)):
        if before[name] != now[name]:
            raise UserError(
                f"this {name} is not the one that the run's checkpoint was trained on, its content has changed",
                where=place,
                remedy=f"put the {name} of the first start back, or begin a new run in another run_dir",
            )


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys that differ and may not, as "key: old -> new"."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = sorted(set(before) | set(after))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key) and key not in _FREE and not key.startswith(_FREE_SECTIONS)
    ]


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
