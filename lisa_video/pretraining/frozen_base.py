"""The frozen base of an experiment: a UNet trained on the clips without poses; on a GPU in recorded steps."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Literal, Self

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from pydantic import model_validator
from torch import Tensor
from tqdm import trange
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lisa_video.config.schema import Positive, RunConfig, Section
from lisa_video.data.manifest import file_digest, read_header
from lisa_video.errors import UserError
from lisa_video.models.backbone import BackboneParts
from lisa_video.models.svd.build import parts_from_modules
from lisa_video.models.svd.norm import set_norm_groups
from lisa_video.models.svd.tiny import save_checkpoint, tiny_unet
from lisa_video.pretraining.base_init import fit_still_picture, initialise_as_still_picture
from lisa_video.pretraining.clips_in_memory import load_clips
from lisa_video.pretraining.draws import Draws
from lisa_video.pretraining.loop import write_record
from lisa_video.pretraining.recorded import capture

_WIDTHS = {"small": (64, 64, 32, 32), "medium": (64, 96, 128, 128), "large": (128, 192, 256, 256)}
_GO_ON = "embedded"
_EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny_svd"
_NORM_GROUPS, _LATENT_CHANNELS = 8, 16  # of the embedded base, whose VAE all bases share
_RATE, _WARM_UP_STEPS, _DECAY, _SEED = 1e-3, 50, 0.995, 0
_RECORD = "training.json"


class FrozenBase(Section):
    """How a base is trained; its frames and noise levels are those of the runs on it."""

    # 5.5, 20 or 78 million parameters in the UNet; or go on from the embedded base, which has the widths of "small"
    size: Literal["small", "medium", "large", "embedded"] = "small"
    layers_per_block: Positive = 2  # SVD has two; more make a deeper base of the same widths
    steps: Positive = 4000  # the rate falls to 0 along a cosine
    batch: Positive = 32  # clips a step

    @model_validator(mode="after")
    def _embedded_has_its_depth(self) -> Self:
        if self.size == _GO_ON and self.layers_per_block != 2:
            raise ValueError("the embedded base has layers_per_block 2: take size small, which has its widths")
        return self


def train_frozen_base(config: RunConfig, recipe: FrozenBase) -> Path:
    """Train the base of a run on its own denoising loss, where the run expects it, unless it is there already.

    What a killed training had done is lost: it takes minutes.

    Args:
        config: of a run; `backbone.path` is the folder, `data` the clips.
        recipe: sizes and lengths.

    Returns:
        The folder, a checkpoint in the hub's layout.

    Raises:
        UserError: the folder holds another base.
    """
    out, data = Path(config.backbone.path), {"manifest_digest": file_digest(config.data.manifest)}
    made = _recipe(recipe)
    if out.exists():
        _check_same(out, {"recipe": made, **data})
        return out
    own = {"micro_batch_size": recipe.batch, "max_steps": recipe.steps}
    config = config.model_copy(update={"training": config.training.model_copy(update=own)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modules = _new_modules(recipe, config.data.num_frames)
    parts = parts_from_modules(*modules)
    parts.codec.to(device)
    parts.backbone.to(device)
    clips = load_clips(config.data, "train", parts.codec, device)
    started = time.perf_counter()
    losses = _Training(parts, Draws(config, parts, clips, _SEED), new=recipe.size != _GO_ON).run(recipe.steps)
    unet, vae, image_encoder, processor = modules
    draft = out.with_name(f"{out.name}.tmp")  # a killed one is no base
    save_checkpoint(draft, unet.cpu(), vae.cpu(), image_encoder.cpu(), processor, variant="fp16")
    facts = {
        "recipe": made,
        "seconds": round(time.perf_counter() - started),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        **data,
        "data": read_header(Path(config.data.manifest)),
    }
    write_record(draft / _RECORD, {"base": losses}, **facts)
    draft.rename(out)
    return out


def _recipe(recipe: FrozenBase) -> dict[str, Any]:
    start: dict[str, Any] = {"unet": _GO_ON}
    if recipe.size != _GO_ON:
        start = {"unet_widths": list(_WIDTHS[recipe.size]), "layers_per_block": recipe.layers_per_block}
    return {"seed": _SEED, **start, "vae": _GO_ON, "steps": recipe.steps, "batch": recipe.batch}


def _check_same(out: Path, wanted: dict[str, Any]) -> None:
    record = out / _RECORD
    found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if different := [name for name in wanted if found.get(name) != wanted[name]]:
        raise UserError(
            f"the folder holds a base with another {' and '.join(different)}",
            where=out,
            remedy="remove the folder, name another as backbone.path, or take this one: inputs.frozen_base=null",
        )


def _new_modules(recipe: FrozenBase, num_frames: int) -> tuple[Any, Any, Any, Any]:
    """UNet with new weights, or the embedded one; the embedded VAE, image encoder and processor."""
    torch.manual_seed(_SEED)
    embedded = {"variant": "fp16", "torch_dtype": torch.float32}
    if recipe.size == _GO_ON:
        unet = UNetSpatioTemporalConditionModel.from_pretrained(_EMBEDDED, subfolder="unet", **embedded)
        unet.register_to_config(num_frames=num_frames)
    else:
        unet = tiny_unet(_WIDTHS[recipe.size], _LATENT_CHANNELS, num_frames, recipe.layers_per_block)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(_EMBEDDED, subfolder="vae", **embedded)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(_EMBEDDED, subfolder="image_encoder", **embedded)
    processor = CLIPImageProcessor.from_pretrained(_EMBEDDED, subfolder="feature_extractor")
    for network in (unet, vae):
        set_norm_groups(network, _NORM_GROUPS)
    return unet, vae, image_encoder, processor


class _Training:
    """The UNet from a still picture on, with a moving average; on a GPU each step is one graph.

    Args:
        parts: on the device; the backbone is trained in place.
        draws: of the steps.
        new: the UNet has been trained by nobody yet.
    """

    def __init__(self, parts: BackboneParts, draws: Draws, new: bool) -> None:
        self.backbone, self.draws = parts.backbone, draws
        if new:
            drawn = draws()
            fit = fit_still_picture(drawn.target, drawn.model_input, drawn.condition.image_latents)
            initialise_as_still_picture(self.backbone.unet, fit)
        self.backbone.requires_grad_(True).train()
        self.parameters: list[Tensor] = list(self.backbone.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        on_gpu, device = draws.order.is_cuda, draws.order.device
        self.rate, self.loss = torch.zeros((), device=device), torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.rate if on_gpu else 0.0, betas=(0.9, 0.99), fused=True, capturable=on_gpu
        )
        self.advance = self._step
        if on_gpu:
            self.advance = capture(self._step, draws.generator)[0].replay  # at rate 0

    def run(self, steps: int) -> list[float]:
        """Train and leave the average in the backbone; returns the loss of each step."""
        for state in self.optimizer.state.values():  # as if there had been no step yet
            for value in state.values():
                value.zero_()
        self.draws.restart()
        losses = torch.zeros(steps, device=self.loss.device)
        for number in trange(steps, desc="base", unit="step"):
            self._set_rate(_RATE * min((number + 1) / _WARM_UP_STEPS, 0.5 * (1 + math.cos(math.pi * number / steps))))
            self.advance()
            losses[number] = self.loss
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)
        self.backbone.requires_grad_(False).eval().cpu()
        values: list[float] = losses.tolist()
        return values

    def _step(self) -> None:
        drawn = self.draws()
        self.optimizer.zero_grad(set_to_none=True)
        state = self.backbone.encode(drawn.model_input, drawn.timestep, drawn.condition)
        error = (self.backbone.decode(state, None) - drawn.target).square().mean()
        error.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (1 / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1))
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - _DECAY)
        self.loss.copy_(error.detach())

    def _set_rate(self, rate: float) -> None:
        self.rate.fill_(rate)
        if not self.rate.is_cuda:
            self.optimizer.param_groups[0]["lr"] = rate
