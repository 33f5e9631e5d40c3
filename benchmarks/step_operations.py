"""Floating-point operations of the steps that `training_step.py` measures: what their times can come down to.

The same modules run forward and backward on the meta device, so it needs no GPU and takes a minute. Each step is
counted as it was timed, with gradient checkpointing (`checkpointed`), and with all activations kept (`kept`).

    python benchmarks/step_operations.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch
from step_public import PublicStep
from step_variants import FULL, Setting, Switch, build_parts, make_batch, run_config
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lisa_video.models.build import build_denoiser, checkpoint_activations
from lisa_video.objective import loss_terms
from lisa_video.planning.trace import flash_attention
from lisa_video.training.muon import orthogonalised

RESULT = Path(__file__).parent / "results/step_operations.json"
MODES = ("plain", "lisa", "two_forwards")


def counted(step: Callable[[], object]) -> int:
    """Operations of a call."""
    with flash_attention(), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


class MetaStep:
    """Forward and backward pass of our step, in any mode of `Switch`, without storage.

    Args:
        setting: sizes; its `checkpointing` is used.
    """

    def __init__(self, setting: Setting) -> None:
        self.batch, config = make_batch(setting), run_config(setting)
        self.config = config.model_copy(update={"branch": config.branch.model_copy(update={"init": "random"})})
        self.parts = build_parts(setting)
        self.parts.codec.to("meta")
        with torch.device("meta"):
            self.model = build_denoiser(self.config, self.parts).to("meta")  # diffusers makes some weights on the CPU
        checkpoint_activations(self.model, setting.checkpointing)
        self.switch = Switch(self.model)

    def __call__(self, mode: str) -> None:
        """One step: the noisy reference is encoded, latents and tokens are there."""
        self.switch.mode, batch, process = mode, self.batch, self.parts.backbone.process
        with torch.device("meta"):
            reference, sigma = batch.frames[:, 0], torch.empty(len(batch.clip_ids))
            with torch.no_grad():
                condition = self.parts.codec.encode_reference(
                    reference,
                    reference,
                    batch.fps,
                    noise_aug_strength=0.02,
                    motion_bucket_id=127.0,
                    embedding=batch.embedding,
                )
            x0 = batch.latents
            x_s, target = process.add_noise(x0, x0, sigma), process.target(x0, x0, sigma)
            prediction = self.switch(x_s, sigma, condition, batch.pose_maps)
            loss_terms(prediction, target, sigma, 0.2).total.backward()


def operations(setting: Setting) -> dict[str, int]:
    """Operations of each kind of step, and of Muon's orthogonalisation of its gradients."""
    ours = MetaStep(setting)
    found = {mode: counted(lambda mode=mode: ours(mode)) for mode in MODES}
    matrices = [p.detach().flatten(1) for p in ours.model.parameters() if p.requires_grad and p.ndim > 1]
    found["muon"] = counted(lambda: [orthogonalised(matrix) for matrix in matrices])
    # Whoever builds a public step runs it once.
    stand_in = SimpleNamespace(parts=ours.parts, model=ours.model, config=ours.config)
    return found | {"public": counted(lambda: PublicStep(setting, ours.batch, stand_in))}


def main() -> None:
    """Count, print, write `results/step_operations.json`."""
    setting = FULL.changed(device="meta", precision="fp32")  # the type of the numbers changes no count
    ways = {"checkpointed": setting, "kept": setting.changed(checkpointing=False)}
    found = {name: operations(way) for name, way in tqdm(ways.items(), desc="operations")}
    text = json.dumps({"setting": asdict(setting), "operations": found}, indent=1)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
