"""What a run publishes: the side branch in diffusers layout, and the contract under which it was trained."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisa_video.config.schema import RunConfig
from lisa_video.errors import UserError
from lisa_video.models.backbone import BackboneParts, SideBranch
from lisa_video.models.build import backbone_module

CONTRACT_VERSION = 1
_CONTRACT = "contract.json"
_BRANCH = "side_branch"


def conditioning_contract(config: RunConfig, parts: BackboneParts) -> dict[str, Any]:
    """The facts that sampling must share with training, as JSON values."""
    return {
        "version": CONTRACT_VERSION,
        "backbone": parts.contract,
        "pose_map": "OpenPose colours on black, brightness by confidence, coco17",
        "size": list(config.data.size),
        "num_frames": config.data.num_frames,
        "frame_stride": config.data.frame_stride,
        "noise_aug_strength": config.conditioning.noise_aug_strength,
        "motion_bucket_id": config.conditioning.motion_bucket_id,
        "pose_dropout": config.conditioning.pose_dropout,
        "image_dropout": config.conditioning.image_dropout,
    }


def save_weights(folder: Path, branch: SideBranch, contract: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write branch and contract under a temporary name, then swap; `facts` (step, run) are for readers only."""
    draft = folder.with_name(folder.name + ".tmp")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    branch.save_pretrained(draft / _BRANCH)
    (draft / _CONTRACT).write_text(json.dumps(contract, indent=1) + "\n", encoding="utf-8")
    (draft / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


def without_weights(branch: SideBranch) -> SideBranch:
    """A copy of the branch that takes no memory: its parameters are on the meta device."""
    empty = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in branch.parameters()}
    return copy.deepcopy(branch, empty)


def with_weights(shell: SideBranch, weights: Mapping[str, Tensor], prefix: str) -> SideBranch:
    """A copy of a branch without weights that holds these tensors, of those whose name starts with the prefix."""
    branch = copy.deepcopy(shell)
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    branch.load_state_dict(own, assign=True)
    return branch


def weights_folder(run_dir: str | Path, step: int | None = None) -> Path:
    """Where a run keeps its exported weights: the newest, or those of a step that `training.export_every` kept."""
    return Path(run_dir) / ("weights" if step is None else f"weights_at/step-{step:08d}")


def kept_steps(run_dir: str | Path) -> list[int]:
    """Steps whose weights a run has kept, rising."""
    folders = Path(run_dir).glob("weights_at/step-????????")
    return sorted(int(folder.name.removeprefix("step-")) for folder in folders)


def load_weights(folder: Path, backbone_name: str) -> tuple[SideBranch, dict[str, Any]]:
    """Read branch and contract.

    Raises:
        UserError: the folder has none, or they are of another version.
    """
    _require(folder)
    contract = json.loads((folder / _CONTRACT).read_text(encoding="utf-8"))
    if contract.get("version") != CONTRACT_VERSION:
        raise UserError(
            f"contract of version {contract.get('version')!r}, this release reads {CONTRACT_VERSION}",
            where=folder / _CONTRACT,
            remedy="export the weights again with this release",
        )
    branch: SideBranch = backbone_module(backbone_name).load_branch(str(folder / _BRANCH))
    return branch, contract


def check_contract(contract: dict[str, Any], parts: BackboneParts, where: Path) -> None:
    """Compare the contract's facts on the backbone with the backbone in use.

    Raises:
        UserError: a fact differs, for example another latent scale.
    """
    for key, trained in contract["backbone"].items():
        if parts.contract.get(key) != trained:
            raise UserError(
                f"trained with {key} = {trained!r}, but the backbone in use has {parts.contract.get(key)!r}",
                where=where,
                remedy="sample with the backbone that the branch was trained on",
            )


def weights_digest(
    module: nn.Module, gathered: Callable[[Tensor], AbstractContextManager[None]] = lambda tensor: nullcontext()
) -> str:
    """sha256 over all parameters and buffers, with their names: proof that a frozen network stayed so.

    Args:
        module: the network.
        gathered: makes a tensor whole for a while, where it is split over ranks.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict(keep_vars=True).items():
        digest.update(name.encode())
        with gathered(tensor):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def codec_digest(parts: BackboneParts) -> str:
    """sha256 over the codec's weights and the contract: what encodes equal pixels to equal latents has an equal one."""
    facts = json.dumps([weights_digest(parts.codec), parts.contract], sort_keys=True)
    return f"sha256:{hashlib.sha256(facts.encode()).hexdigest()}"


def weights_file_digest(folder: Path) -> str:
    """sha256 over the files of exported weights: the name of what was sampled.

    Raises:
        UserError: the folder has no weights.
    """
    _require(folder)
    digest = hashlib.sha256()
    for path in [folder / _CONTRACT, *sorted((folder / _BRANCH).iterdir())]:
        digest.update(path.name.encode() + path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _require(folder: Path) -> None:
    if not (folder / _CONTRACT).is_file():
        raise UserError("no trained weights", where=folder, remedy="train first, or name the `weights` folder of a run")
