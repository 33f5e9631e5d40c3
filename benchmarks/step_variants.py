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
from lisa_video.planning.trace import trace_step
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

    def extras(self) -> dict[str, Callable[[Callable[..., dict[str, Any]]], dict[str, Any]]]:
        """Other settings of our step: by name, a function that is given what measures steps."""
        lisa, both = {"lisa": self.step_of("lisa")}, {mode: self.step_of(mode) for mode in ("plain", "lisa")}

        def tuned(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            torch.backends.cudnn.benchmark = True
            try:
                return measure(both)
            finally:
                torch.backends.cudnn.benchmark = False

        def channels_last(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            for p in self.parts.backbone.parameters():
                if p.ndim == 4:
                    p.data = p.data.contiguous(memory_format=torch.channels_last)
            try:
                return measure(both)
            finally:
                for p in self.parts.backbone.parameters():
                    p.data = p.data.contiguous()

        def uncached(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            self.cached = False
            try:
                return measure(lisa)
            finally:
                self.cached = True

        def larger(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            smaller = self.batch
            self.batch = make_batch(self.setting.changed(height=576, width=1024))
            try:
                return measure(lisa)
            finally:
                self.batch = smaller

        def kept(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            forwards = _stop_checkpointing(self.parts.backbone)
            try:
                return measure(both)
            finally:
                for module, forward in forwards:
                    module.forward = forward

        def graphs(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            self.switch.capture(self.encode())
            try:
                return measure({mode: self.step_of(mode) for mode in ("plain_graph", "lisa_graph", "lisa")})
            finally:
                self.switch.graphed.clear()

        def within(outer: Any, inner: Any) -> Callable[[Callable[..., dict[str, Any]]], dict[str, Any]]:
            return lambda measure: outer(lambda _: inner(measure))

        on_gpu = self.setting.device == "cuda"
        named: dict[str, Callable[[Callable[..., dict[str, Any]]], dict[str, Any]]] = {
            "uncached": uncached,
            "joint": lambda measure: measure({"joint": self.step_of("joint")}),
            "decoder_activations_kept": kept,
            "cudnn_benchmark": tuned,
            "channels_last": channels_last,
        }
        captured = {
            "graphs": graphs,
            "graphs_cudnn_benchmark": within(tuned, graphs),
            "graphs_decoder_kept": within(kept, graphs),
            "graphs_channels_last": within(channels_last, graphs),
        }
        return (captured if on_gpu else {}) | ({"576x1024": larger} if self.setting.full else {}) | named

    def flops(self) -> dict[str, int]:
        """Floating-point operations of one LISA step, with and without recomputation, on the meta device."""
        published = {"path": "stabilityai/stable-video-diffusion-img2vid"}
        config = self.config.model_copy(update={"backbone": self.config.backbone.model_copy(update=published)})
        trace = trace_step(config)
        return {"flops": trace.flops, "model_flops": trace.model_flops}


def _stop_checkpointing(module: nn.Module) -> list[tuple[nn.Module, Any]]:
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


class PublicStep:
    """The plain step in the manner of the public scripts, around the same frozen network.

    Its branch is float32 under bf16 autocast, its frozen parts are in the computation's type, the frozen network runs
    as one pass with autograd on, and the optimizer is AdamW as torch makes it.
    """

    def __init__(self, setting: Setting, batch: ClipBatch, ours: OurStep) -> None:
        before = allocated()
        self.setting, self.batch, self.ours = setting, batch, ours
        self.backbone, codec = ours.parts.backbone, ours.parts.codec
        self.shared_bytes = sum(p.numel() * p.element_size() for p in self.backbone.parameters())
        with torch.device(setting.device):
            config = ours.config.model_copy(update={"lisa": None})
            self.branch = build_denoiser(config, ours.parts).branch.to(setting.device, torch.float32)
        self.branch.load_state_dict(ours.model.branch.state_dict())
        if setting.checkpointing:
            self.branch.enable_gradient_checkpointing()
        parts = build_codec(setting)
        self.vae, self.image_encoder = parts
        self.mean, self.std = codec.clip_mean.to(setting.dtype), codec.clip_std.to(setting.dtype)
        self.optimizer = torch.optim.AdamW(self.branch.parameters(), lr=1e-5)
        self()  # the optimizer's state is there from the first step
        self.static_bytes = allocated() - before

    def __call__(self) -> None:
        """One optimizer step."""
        setting, process = self.setting, self.backbone.process
        pixels = self.batch.frames.to(setting.dtype)
        clips, frames = pixels.shape[:2]
        with torch.no_grad():
            latents = self.vae.encode(pixels.flatten(0, 1)).latent_dist.mode() * self.vae.config.scaling_factor
            latents = latents.unflatten(0, (clips, frames)).float()
            reference = pixels[:, 0] + 0.02 * torch.randn_like(pixels[:, 0])
            image = self.vae.encode(reference).latent_dist.mode()
            small = nn.functional.interpolate(pixels[:, 0].float(), (224, 224), mode="bilinear", antialias=True)
            unit = ((small + 1) / 2).to(setting.dtype)
            tokens = self.image_encoder((unit - self.mean) / self.std).image_embeds[:, None]
        sigma = torch.randn(clips, device=setting.device).mul(1.6).add(0.7).exp()
        noise = torch.randn_like(latents)
        x_s, target = process.add_noise(latents, noise, sigma), process.target(latents, noise, sigma)
        time_ids = torch.tensor([[6.0, 127.0, 0.02]] * clips, device=setting.device)
        condition = Condition(image.to(setting.dtype), tokens.to(setting.dtype), time_ids)
        model_input, t = process.model_input(x_s, sigma).to(setting.dtype), process.timestep(sigma)
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            output = self.branch(model_input, t, condition, self.batch.pose_maps)
        residuals = output.residuals._replace(
            down=tuple(residual.to(setting.dtype) for residual in output.residuals.down),
            mid=output.residuals.mid.to(setting.dtype),
        )
        forwards = _stop_checkpointing(self.backbone)  # they have no checkpointing in the frozen network
        try:
            prediction = self.backbone.decode(self.backbone.encode(model_input, t, condition), residuals)
            nn.functional.mse_loss(prediction.float(), target).backward()
        finally:
            for module, forward in forwards:
                module.forward = forward
        nn.utils.clip_grad_norm_(self.branch.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def build_codec(setting: Setting) -> tuple[nn.Module, nn.Module]:
    """VAE and image encoder in the computation's type, as the public scripts hold them."""
    with torch.device(setting.device):
        if setting.full:
            vae = AutoencoderKLTemporalDecoder(**svd._PUBLISHED_VAE)
            image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**svd._PUBLISHED_CLIP))
        else:
            vae, image_encoder = tiny_vae(), tiny_image_encoder()[0]
    parts = (vae, image_encoder)
    for part in parts:
        part.to(setting.device, setting.dtype).requires_grad_(False).eval()
    return parts
