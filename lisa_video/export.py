"""`lisa-video export`: the side branch of a run as one folder to keep or to publish, in diffusers layout."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lisa_video.config.load import dump_config, load_config
from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.models.weights import kept_steps, load_weights, weights_file_digest, weights_folder

_PRIVATE = {"run_dir", "data", "preview", "diagnostics"}  # paths of this machine, and what leaves no trace in weights


def export_branch(run_dir: Path, out: Path, step: int | None = None) -> None:
    """Write the branch's settings and weights (`config.json`, safetensors), its contract, and a model card.

    Args:
        run_dir: of a training run, which may still go on.
        out: new folder; complete or absent.
        step: of weights that `training.export_every` kept; None: the newest.

    Raises:
        UserError: not a run, no weights of that step, or something stands in the way of `out`.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UserError("not a run: no config.yaml", where=run_dir, remedy="name the run_dir of a training run")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("there is something here already", where=out, remedy="name a new folder")
    if step is not None and step not in kept_steps(run_dir):
        kept = ", ".join(map(str, kept_steps(run_dir))) or "none; set training.export_every before you train"
        raise UserError(f"no weights of step {step}", where=run_dir, remedy=f"choose a kept step ({kept})")
    config, source = load_config(run_dir / "config.yaml"), weights_folder(run_dir, step)
    _, contract = load_weights(source, config.backbone.name)  # what cannot be read back is not published
    draft = out.with_name(out.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source / "side_branch", draft)
    for name in ("contract.json", "facts.json"):
        shutil.copyfile(source / name, draft / name)
    facts = json.loads((source / "facts.json").read_text(encoding="utf-8"))
    (draft / "README.md").write_text(_card(config, contract, facts, weights_file_digest(source)), encoding="utf-8")
    draft.replace(out)


def _card(config: RunConfig, contract: dict[str, Any], facts: dict[str, Any], digest: str) -> str:
    """The model card, Markdown with the hub's header."""
    height, width = contract["size"]
    base = _public_name(config.backbone.path)
    counts, lisa = facts["parameters"], config.lisa
    start = "a copy of the encoder half of the frozen network" if config.branch.init == "encoder" else "random weights"
    method = "no auxiliary loss (baseline)" if lisa is None else f"LISA on {lisa.layer}, weight {lisa.weight:g}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("lisa-video", "torch", "diffusers"))
    settings = config.model_copy(update={"backbone": config.backbone.model_copy(update={"path": base})})
    groups = contract["backbone"].get("norm_groups", 32)
    notes = f"\nThe frozen network needs `backbone.options.norm_groups: {groups}`.\n" if groups != 32 else ""
    return f"""---
library_name: diffusers
license: other
license_name: see-the-section-on-licences
tags: [controlnet, image-to-video, pose]
---
# Pose side branch for {base}

A temporal ControlNet: with the frozen network that it was trained on, it makes a video of the person on a picture
that follows a sequence of poses. It is of no use without that network, whose weights are not in this folder.

| | |
|---|---|
| frozen network | {base} |
| clips | {contract["num_frames"]} frames of {width} x {height} pixels, stride {contract["frame_stride"]} |
| pose maps | {contract["pose_map"]} |
| training | {facts["step"]:,} steps, {facts["seconds"] / 3600:.2f} h in steps, {method}, seed {config.seed} |
| weights | moving average (decay {config.optimizer.ema_decay:g}), {counts["branch"]:,} parameters |
| digest | {digest} |
| written with | {versions} |

How good its videos are is not said here: `lisa-video eval run` measures that, with the protocol beside it.
{notes}
## Use

```python
from lisa_video.models.svd.side_branch import TemporalControlNet

branch = TemporalControlNet.from_pretrained("this folder")
```

A whole script is in `docs/using_a_branch.md` of lisa_video. `contract.json` holds the facts on which the branch
depends; `PoseVideoPipeline` compares them with the network in use, and refuses one that does not fit.

## Licences

The branch began as {start}. Whoever shares it has to respect the licence of the frozen network's weights (those of
Stable Video Diffusion are under a licence of Stability AI), the terms of the clips that it was trained on, and the
rights of the people in them. lisa_video itself, the code, is under Apache-2.0, which says nothing about the weights.

## Settings

```yaml
{_without_private(settings)}```
"""


def _public_name(path: str) -> str:
    """A hub repository as it is, a local folder without where it lies."""
    is_local = Path(path).exists() or path.startswith((".", "/", "~")) or path.count("/") != 1
    return Path(path).name if is_local else path


def _without_private(config: RunConfig) -> str:
    section: str | None = None
    kept = []
    for line in dump_config(config).splitlines(keepends=True):
        if not line.startswith((" ", "-")):
            section = line.partition(":")[0]
        if section not in _PRIVATE:
            kept.append(line)
    return "".join(kept)
