"""Every setting of a run, with its unit, on one page. The tree is strict and frozen; YAML mirrors it.

Batch size, accumulation, clipping and precision are said here once; the DeepSpeed dictionary is derived from them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which clips are read, and how frames become batches."""

    manifest: str  # path of a manifest.jsonl
    num_frames: Positive = 14  # frames of a training clip
    frame_stride: Positive = 1  # frames of a record from one training frame to the next
    size: tuple[Positive, Positive] = (512, 512)  # height, width in pixels
    buckets: tuple[tuple[Positive, Positive, Positive], ...] | None = None  # (height, width, frames) of training clips
    keep_in_memory: bool = False  # each clip is decoded and drawn once a process: small data sets only
    max_upscale: Annotated[float, Field(ge=1)] = 1.25  # clips that no bucket takes without growing more are left out
    flip_probability: Probability = 0.5  # mirrored, pose with it
    cache: str | None = None  # folder or URL of a latent cache (`lisa-video data cache`); null: videos are decoded
    num_workers: Annotated[int, Field(ge=0)] = 2  # decoding processes a rank


class BackboneConfig(Section):
    """The frozen network."""

    name: str = "svd"  # sub-package of lisa_video.models, or a dotted module path with a `build`
    path: str = "stabilityai/stable-video-diffusion-img2vid"  # folder or hub repository
    options: dict[str, Any] = {}  # the backbone's own settings, checked by it


class BranchConfig(Section):
    """The trainable side branch."""

    init: Literal["encoder", "random"] = "encoder"  # copy the frozen encoder's weights, or not
    pose_channels: tuple[Positive, ...] = (16, 32, 96, 256)  # pose encoder widths, pixel grid -> latent grid
    pose_last_init: Literal["zero", "default"] = "zero"  # "zero" as published


class LISAConfig(Section):
    """The auxiliary decoder; `lisa: null` is the plain ControlNet baseline."""

    variant: Literal["paper"] | None = None  # "paper": `PUBLISHED`, and nothing else is let in
    layer: str = "down_5"  # branch feature that is decoded
    weight: Annotated[float, Field(ge=0)] = 0.2  # lambda
    decay_samples: Annotated[int, Field(ge=0)] = 0  # clips over which lambda falls linearly to 0; 0: constant
    noise_weight: Literal["uniform", "noisy"] = "uniform"  # over noise levels: 1 as published, or s^2 / (1 + s^2)
    temporal_pooling: bool = True  # each frame sees the feature's mean over the clip
    last_init: Literal["zero", "default"] = "zero"  # "zero" as published
    decoder_rate: Annotated[float, Field(gt=0)] = 1.0  # learning rate of the decoder, in units of optimizer.lr
    every: Positive = 1  # k: the loss is computed on every k-th micro-batch, k times as heavy; cheaper and noisier

    PUBLISHED: ClassVar[dict[str, Any]] = {
        "weight": 0.2, "decay_samples": 0, "noise_weight": "uniform", "temporal_pooling": True, "last_init": "zero",
        "decoder_rate": 1.0, "every": 1,
    }  # fmt: skip
    """LISA as in the paper, in its form for video (`docs/method.md`)."""

    @model_validator(mode="before")
    @classmethod
    def fill_in_variant(cls, values: Any) -> Any:
        """`variant: paper` stands for all of `PUBLISHED`, whatever the defaults are or become."""
        if not isinstance(values, dict) or values.get("variant") != "paper":
            return values
        others = [name for name, value in cls.PUBLISHED.items() if values.get(name, value) != value]
        if others:
            raise ValueError(f"variant: paper leaves no choice of {', '.join(others)}: remove them, or the variant")
        return {**cls.PUBLISHED, **values}


class NoiseConfig(Section):
    """Distribution of the noise level in training."""

    distribution: Literal["lognormal", "cosine"] = "lognormal"
    mean: float = 0.7  # of ln(sigma), lognormal
    std: Annotated[float, Field(gt=0)] = 1.6  # of ln(sigma), lognormal


class ConditioningConfig(Section):
    """What the frozen network is told besides the pose, and how often it is not told."""

    image_dropout: Annotated[float, Field(ge=0, le=1 / 3)] = 0.1  # p; embedding off if u < 2p, latents if p <= u < 3p
    pose_dropout: Probability = 0.1  # pose map blanked, independently; needed for guidance on the pose
    noise_aug_strength: Annotated[float, Field(ge=0)] = 0.02  # noise on the reference image, pixels in [-1, 1]
    motion_bucket_id: float = 127.0


class OptimizerConfig(Section):
    """AdamW or Muon, one joint clip of the gradient norm over branch and decoder."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: bears and wants a higher rate; zero_stage 0
    lr: Annotated[float, Field(gt=0)] = 1e-5
    new_layers_rate: Annotated[float, Field(gt=0)] = 1.0  # of pose encoder and zero convolutions, in units of lr
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95  # of muon
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    eps: Annotated[float, Field(gt=0)] = 1e-8
    warmup_samples: Annotated[int, Field(ge=0)] = 0  # clips until the rate has risen to lr
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.0  # last part of the run, over which the rate falls to 0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


class TrainingConfig(Section):
    """Length, batch and engine. Clips a step = micro_batch_size x gradient_accumulation x ranks."""

    max_steps: Positive = 5000  # optimizer steps
    micro_batch_size: Positive = 1  # clips a rank and pass
    gradient_accumulation: Positive = 1
    precision: Literal["fp32", "bf16"] = "bf16"
    zero_stage: Literal[0, 1, 2, 3] = 2  # split over ranks: 1 optimizer states, 2 gradients too, 3 weights too
    offload_optimizer: bool = False  # optimizer states and float32 weights in host memory; stages 1 to 3
    offload_parameters: bool = False  # weights in host memory when not in use; stage 3
    shard_frozen: bool = True  # stage 3: split the frozen network too; false: whole on every rank, no gathering
    gradient_checkpointing: bool | Literal["branch", "decoder"] = (
        True  # where activations are computed twice; true: both
    )
    compile: bool = False  # torch.compile the pass: minutes at the start
    cuda_graphs: bool = False  # replay the captured pass: where kernels are shorter than their launches
    log_every: Positive = 10  # steps
    checkpoint_every: Positive = 500  # steps
    keep_checkpoints: Positive = 2  # newest ones kept
    keep_every: Annotated[int, Field(ge=0)] = 0  # those of every so many steps stay for good; 0: none
    async_checkpoints: bool = True  # copied to host memory, written while training goes on
    export_every: Annotated[int, Field(ge=0)] = 0  # steps between weights kept for evaluation; 0: newest only
    max_nonfinite: Positive = 50  # steps of the run with a non-finite loss or gradient (thrown away) before it stops
    quarantine_after: Positive = 3  # such steps that a clip was in before it is left out
    watchdog_seconds: Annotated[float, Field(gt=0)] = 1800.0  # without progress on a rank until the run is ended


class SamplingConfig(Section):
    """How videos are made, in previews and evaluation; part of every score's protocol."""

    num_steps: Positive = 25
    sigma_min: Annotated[float, Field(gt=0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0)] = 700.0
    guidance_first: Annotated[float, Field(ge=0)] = 1.0  # scale at the first frame; 1 and 1: no guidance, one pass
    guidance_last: Annotated[float, Field(ge=0)] = 3.0  # scale at the last frame
    unconditional_pose: Literal["driving", "blank", "none"] = "driving"  # in guidance's other half; none: no branch
    pose_guidance: Annotated[float, Field(ge=0)] = 1.0  # of what the branch changes; 1: nothing more, half a pass less
    pose_guidance_range: tuple[float, float] | None = None  # low, high: noise levels at which; null: all


class PreviewConfig(Section):
    """Fixed held-out clips that are sampled during training, scored and saved as pictures."""

    every: Annotated[int, Field(ge=0)] = 500  # steps; 0: never
    num_clips: Positive = 4
    num_steps: Positive = 10  # sampling steps
    detector: str | None = None  # keypoint_net, mediapipe, a folder or YAML file; null: pictures only


class DiagnosticsConfig(Section):
    """What is measured beside the training loss, and how often; none of it changes the weights."""

    held_out_every: Annotated[int, Field(ge=0)] = 500  # steps between losses of held-out clips; 0: never
    held_out_clips: Positive = 8
    held_out_levels: Positive = 5  # noise levels, equally spaced in the training distribution's quantiles
    gradients_every: Annotated[int, Field(ge=0)] = 0  # steps between probes of both losses' gradients; 0: never
    tracker: Literal["wandb", "trackio"] | None = None  # gets all metrics besides TensorBoard; installed by you


class RunConfig(Section):
    """A whole run. `lisa: null` gives the baseline; nothing else differs."""

    run_dir: str  # where everything of the run is written
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    branch: BranchConfig = BranchConfig()
    lisa: LISAConfig | None = LISAConfig()
    noise: NoiseConfig = NoiseConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    preview: PreviewConfig = PreviewConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()

    @model_validator(mode="after")
    def check_across_sections(self) -> RunConfig:
        """Rules that concern more than one key, all in this place."""
        if self.sampling.sigma_min >= self.sampling.sigma_max:
            raise ValueError("sampling.sigma_min must be below sampling.sigma_max")
        within = self.sampling.pose_guidance_range
        if within is not None and not 0 <= within[0] < within[1]:
            raise ValueError("sampling.pose_guidance_range: write noise levels as [low, high], 0 <= low < high")
        guided = (self.sampling.guidance_first, self.sampling.guidance_last) != (1.0, 1.0)
        if guided and self.sampling.unconditional_pose == "blank" and self.conditioning.pose_dropout == 0:
            raise ValueError(
                "sampling.unconditional_pose: blank needs conditioning.pose_dropout > 0, or the branch never learns "
                "what a blank pose means"
            )
        if guided and self.sampling.unconditional_pose != "none" and self.conditioning.image_dropout == 0:
            raise ValueError(
                "guidance other than 1 needs conditioning.image_dropout > 0, or sampling.unconditional_pose: none: the "
                "frozen network alone for the half without the image"
            )
        training = self.training
        if training.cuda_graphs and training.gradient_accumulation > 1:
            raise ValueError("training.cuda_graphs needs training.gradient_accumulation: 1")
        if training.cuda_graphs and (training.compile or (self.lisa is not None and self.lisa.every > 1)):
            raise ValueError("training.cuda_graphs captures one pass as it is: training.compile: false, lisa.every: 1")
        if training.zero_stage == 3 and (training.cuda_graphs or training.compile):
            raise ValueError(
                "training.cuda_graphs and compile need training.zero_stage below 3: weights come and go there"
            )
        if training.cuda_graphs and self.data.buckets is not None:
            raise ValueError("training.cuda_graphs needs clips of one size: data.buckets: null")
        if min([self.data.num_frames, *(bucket[2] for bucket in self.data.buckets or ())]) < 2:
            raise ValueError("data.num_frames, and frames of data.buckets, must be at least 2: the branch is temporal")
        if self.diagnostics.gradients_every and self.training.zero_stage > 2:
            raise ValueError(
                "diagnostics.gradients_every needs training.zero_stage 0, 1 or 2: it takes whole gradients"
            )
        if training.offload_optimizer and training.zero_stage == 0:
            raise ValueError("training.offload_optimizer needs training.zero_stage 1, 2 or 3")
        if training.zero_stage > 0 and self.optimizer.kind == "muon":
            raise ValueError("optimizer.kind: muon needs training.zero_stage 0: it takes whole weight matrices")
        if training.zero_stage < 3 and (training.offload_parameters or not training.shard_frozen):
            raise ValueError("training.offload_parameters and training.shard_frozen: false need training.zero_stage 3")
        if self.data.buckets is not None and len(set(self.data.buckets)) != max(len(self.data.buckets), 1):
            raise ValueError("data.buckets must be one or more different buckets, or null")
        return self
