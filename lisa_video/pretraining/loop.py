"""A plain single-process training loop for the embedded tiny networks: AdamW, cosine rate, EMA, exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import trange


@dataclass(frozen=True)
class LoopSettings:
    """Length and optimiser of a pretraining stage."""

    steps: int
    lr: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.995
    clip_norm: float = 1.0
    weight_decay: float = 1e-2
    save_every: int = 200


def train(
    name: str,
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    settings: LoopSettings,
    state_dir: Path,
    seek: Callable[[int], None],
) -> list[float]:
    """Train `model` in place and leave its moving average in it; return the loss of every step.

    A killed run continues from its last saved state when called again.

    Args:
        name: of the stage, for the progress bar and the state file.
        model: its parameters that require gradients are trained.
        loss_at: loss of the batch of one step; called for consecutive steps.
        settings: see `LoopSettings`.
        state_dir: folder of the state file.
        seek: told the first step before `loss_at` is called, to position the data.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, settings.warmup_steps),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.steps - settings.warmup_steps, 1)),
        ],
        [settings.warmup_steps],
    )
    decay = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=decay)
    state_file = state_dir / f"{name}.state.pt"
    losses: list[float] = []
    stateful: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    if state_file.is_file():
        saved = torch.load(state_file, weights_only=True)
        for key, part in stateful.items():
            part.load_state_dict(saved[key])
        losses = saved["losses"]
    seek(len(losses))
    bar = trange(len(losses), settings.steps, initial=len(losses), total=settings.steps, desc=name, unit="step")
    for step in bar:
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        recent = losses[-50:]
        bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}")
        if (step + 1) % settings.save_every == 0:
            _save(state_file, {key: part.state_dict() for key, part in stateful.items()} | {"losses": losses})
    model.load_state_dict(average.module.state_dict())
    return losses


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)


def write_record(path: Path, losses: dict[str, list[float]], **facts: object) -> None:
    """Write what made the weights: settings, seed, data digest, and the loss curves as means of 20 steps."""
    curves = {
        name: [round(sum(curve[i : i + 20]) / len(curve[i : i + 20]), 5) for i in range(0, len(curve), 20)]
        for name, curve in losses.items()
    }
    path.write_text(json.dumps({**facts, "loss_every_20_steps": curves}, indent=1) + "\n", encoding="utf-8")
