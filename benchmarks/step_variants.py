"""The models and steps that `training_step.py` measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from joint_decode import decode_both
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from lisa_video.conditioning import EncodedBatch, encode_batch
from lisa_video.config.schema import ConditioningConfig, DataConfig, RunConfig, TrainingConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.models.backbone import BackboneParts, Condition
from lisa_video.models.build import build_denoiser, build_sigmas, checkpoint_activations
from lisa_video.models.controlled import ControlledDenoiser, Prediction
from lisa_video.models.svd import build as svd
from lisa_video.models.svd.tiny import tiny_image_encoder, tiny_unet, tiny_vae
from lisa_video.objective import LISAWeight, Objective
from lisa_video.training.graphs import capture


@dataclass(frozen=True)
class Setting:
    """Sizes of a measurement; latents have an eighth (full) or a fourth (tiny) of the pixels' sides."""

    name: str
    device: str
    precision: str
    clips: int
    frames: int
    height: int
    width: int
    checkpointing: bool | str
    repeats: int
    full: bool

    def changed(self, **changes: Any) -> Setting:
        """With what is given of the changes."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


TINY = Setting("tiny", "cpu", "fp32", 2, 8, 64, 64, checkpointing=False, repeats=15, full=False)
FULL = Setting("full", "cuda", "bf16", 1, 14, 512, 512, checkpointing=True, repeats=6, full=True)


def build_parts(setting: Setting) -> BackboneParts:
    """Backbone and codec with random weights, made where they will stay."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        if not setting.full:
            unet, vae, (image_encoder, extractor) = tiny_unet(), tiny_vae(), tiny_image_encoder()
        else:
            unet = UNetSpatioTemporalConditionModel()
            vae = AutoencoderKLTemporalDecoder(**svd._PUBLISHED_VAE)
            image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**svd._PUBLISHED_CLIP))
            extractor = CLIPImageProcessor()
        unet.to(setting.device, setting.dtype)
        vae.to(setting.device)
        return svd.parts_from_modules(unet, vae, image_encoder, extractor)


def run_config(setting: Setting) -> RunConfig:
    """The run that a step of this size would belong to."""
    channels = (16, 32, 96, 256) if setting.full else (16, 32, 64)
    return RunConfig.model_validate(
        {
            "run_dir": "unused",
            "data": DataConfig(
                manifest="unused",
                num_frames=setting.frames,
                size=(setting.height, setting.width),
                cache="unused",
            ).model_dump(),
            "branch": {"pose_channels": channels, "pose_last_init": "default"},
            "training": TrainingConfig(
                micro_batch_size=setting.clips,
                precision=setting.precision,
                gradient_checkpointing=setting.checkpointing,
                zero_stage=2,
            ).model_dump(),
        }
    )


def make_batch(setting: Setting) -> ClipBatch:
    """A batch of noise, with its latents and tokens as a cache has them and with its pixels."""
    stride, width = (8, 1024) if setting.full else (4, 64)
    device, clips, frames = setting.device, setting.clips, setting.frames
    with torch.device(device):
        return ClipBatch(
            clip_ids=tuple(str(number) for number in range(clips)),
            positions=torch.arange(clips),
            frames=torch.rand(clips, frames, 3, setting.height, setting.width) * 2 - 1,
            pose_maps=torch.rand(clips, frames, 3, setting.height, setting.width),
            fps=torch.full((clips,), 7.0),
            keypoints=(),
            latents=torch.randn(clips, frames, 4, setting.height // stride, setting.width // stride),
            embedding=torch.randn(clips, 1, width),
        )


def allocated() -> int:
    """Bytes on the GPU now; 0 without one."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


class Switch(nn.Module):
    """`ControlledDenoiser`, with the forward pass that is being measured.

    Modes: plain, lisa; two_forwards, the whole frozen network with residuals and again without; joint, m and m0 as one
    batch in the decoder half; plain_graph and lisa_graph, replayed CUDA graphs.
    """

    def __init__(self, model: ControlledDenoiser) -> None:
        super().__init__()
        self.model, self.mode = model, "lisa"
        self.graphed: dict[str, ControlledDenoiser] = {}

    def capture(self, example: EncodedBatch) -> None:
        """Capture the passes of both graph modes, as they are set now."""
        model = self.model
        for mode, decoder in {"plain_graph": None, "lisa_graph": model.decoder}.items():
            self.graphed[mode] = ControlledDenoiser(model.backbone, model.branch, decoder).train()
            capture(self.graphed[mode], example)

    def forward(self, x_s: Tensor, s: Tensor, condition: Condition, pose_maps: Tensor) -> Prediction:
        """See `ControlledDenoiser`."""
        if self.mode in ("plain", "lisa"):
            return self.model(x_s, s, condition, pose_maps, align=self.mode == "lisa")
        if self.mode in self.graphed:
            return self.graphed[self.mode](x_s, s, condition, pose_maps)
        model = self.model
        backbone, dtype, decoder = model.backbone, model.dtype, model.decoder
        model_input, t = backbone.process.model_input(x_s, s).to(dtype), backbone.process.timestep(s)
        condition = Condition(*(part.to(dtype) for part in condition[:2]), condition.time_ids)
        branch = model.branch(model_input, t, condition, pose_maps.to(dtype))
        if self.mode == "two_forwards":
            controlled = backbone.decode(backbone.encode(model_input, t, condition), branch.residuals)
            with torch.no_grad():
                frozen = backbone.decode(backbone.encode(model_input, t, condition), None)
        else:
            with torch.no_grad():
                state = backbone.encode(model_input, t, condition)
            controlled, frozen = decode_both(backbone.unet, state, branch.residuals)
        lisa = decoder(branch.features[model.feature_index], t, tuple(x_s.shape[-2:])).float()
        return Prediction(controlled.float(), frozen.float(), lisa)


class PlainEngine:
    """Stands in where DeepSpeed is not installed: bf16 weights, float32 masters, fused AdamW, clipping."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        self.module, settings = model, config.optimizer
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.masters, lr=settings.lr, fused=True)

    def backward_and_step(self, loss: Tensor) -> None:
        """As `Engine`."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for master, p in zip(self.masters, self.parameters, strict=True):
            master.grad = torch.zeros_like(master) if p.grad is None else p.grad.float()
            p.grad = None
        self.optimizer.step()
        for master, p in zip(self.masters, self.parameters, strict=True):
            p.data.copy_(master)
            master.grad = None


class OurStep:
    """Our training step, in any mode of `Switch`."""

    def __init__(self, setting: Setting, batch: ClipBatch) -> None:
        before = allocated()
        self.setting, self.batch, self.config = setting, batch, run_config(setting)
        self.parts = build_parts(setting)
        with torch.device(setting.device):
            model = build_denoiser(self.config, self.parts)
        self.model = model.to(setting.device, setting.dtype)
        open_zero_convolutions(self.model)
        checkpoint_activations(self.model, setting.checkpointing)
        self.switch = Switch(self.model)
        try:
            from lisa_video.training.engine import Engine, start_process_group

            start_process_group()
            self.engine: Any = Engine(self.switch, self.config)
            self.engine_name = "DeepSpeed, ZeRO 2"
        except Exception as error:  # recorded: the rest is worth measuring
            self.engine, self.engine_name = PlainEngine(self.switch, self.config), f"without DeepSpeed ({error!r})"
        self.average = self._average()
        self.objective = Objective(self.parts.backbone.process, build_sigmas(self.config.noise), LISAWeight(0.2), 0)
        self.cached = True
        self.static_bytes = allocated() - before

    def _average(self) -> Any:
        from lisa_video.training.ema import MovingAverage

        try:
            return MovingAverage(self.engine, 0.999)
        except (AttributeError, TypeError):
            return MovingAverage(self.model.trainable, 0.999)

    def encode(self) -> EncodedBatch:
        """What the codec does in a step: with a latent cache, the noisy reference only."""
        batch = replace(self.batch, frames=self.batch.frames[:, :1]) if self.cached else self.batch
        if not self.cached:
            batch = replace(batch, latents=None, embedding=None)
        return encode_batch(self.parts.codec, batch, ConditioningConfig(), 0)

    def update_average(self) -> None:
        """The moving average's part of a step."""
        try:
            self.average.update()
        except TypeError:
            self.average.update(self.model.trainable)

    def __call__(self) -> None:
        """One optimizer step, as in `Trainer.train_step`."""
        terms = self.objective(self.engine.module, self.encode())
        self.engine.backward_and_step(terms.total)
        self.update_average()

    def step_of(self, mode: str) -> Callable[[], None]:
        """The step in a mode."""

        def step() -> None:
            self.switch.mode = mode
            self()

        return step


def stop_checkpointing(module: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Undo `checkpoint_layers`; returns what it had set."""
    patched = [(part, part.__dict__["forward"]) for part in module.modules() if "forward" in part.__dict__]
    for part, _ in patched:
        del part.__dict__["forward"]
    return patched


def open_zero_convolutions(model: ControlledDenoiser) -> None:
    """As after some training: behind zero weights, some kernels would see zeros only."""
    last = [] if model.decoder is None else [model.decoder.conv_out]
    for conv in (*model.branch.zero_convs, model.branch.zero_conv_mid, *last):
        nn.init.normal_(conv.weight, std=0.01)
