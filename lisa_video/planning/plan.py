"""`lisa-video plan`: what a run needs on each GPU, for each ZeRO stage, and which settings make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from lisa_video.config.schema import RunConfig
from lisa_video.planning.memory import LAYOUTS, Layout, RankMemory, rank_memory
from lisa_video.planning.trace import StepTrace, largest_bucket, trace_step

_COLUMNS = ("frozen", "codec", "weights", "optimizer", "average", "gradients", "activations", "peak", "needed", "host")


@dataclass(frozen=True)
class RunPlan:
    """Sizes of a run.

    Attributes:
        config: of the run.
        ranks: GPUs.
        gpu_bytes: memory of one; None: not told.
        trace: of the run's step.
        memory: of one rank, by layout.
    """

    config: RunConfig
    ranks: int
    gpu_bytes: int | None
    trace: StepTrace
    memory: dict[Layout, RankMemory]

    @property
    def chosen(self) -> Layout:
        """The layout that the config asks for."""
        training = self.config.training
        return Layout(training.zero_stage, training.offload_optimizer, training.offload_parameters)

    @property
    def fits(self) -> bool | None:
        """Whether the config fits as it is; None: the memory of a GPU was not told."""
        return None if self.gpu_bytes is None else self.memory[self.chosen].needed <= self.gpu_bytes

    @property
    def recommended(self) -> Layout | None:
        """The fastest layout that fits; None: none does."""
        return next((layout for layout, memory in self.memory.items() if memory.needed <= (self.gpu_bytes or 0)), None)

    def as_json(self) -> dict[str, Any]:
        """For programs: bytes."""
        best = self.recommended
        return {
            "ranks": self.ranks,
            "gpu_bytes": self.gpu_bytes,
            "bucket": largest_bucket(self.config),
            "trace": asdict(self.trace),
            "layouts": [
                {**layout._asdict(), **asdict(memory), "needed": memory.needed}
                for layout, memory in self.memory.items()
            ],
            "chosen": self.chosen._asdict(),
            "fits": self.fits,
            "recommended": None if best is None else list(best.overrides),
        }

    def as_text(self) -> str:
        """For people: gigabytes (10^9 bytes) of one GPU."""
        height, width, frames = largest_bucket(self.config)
        training, trace = self.config.training, self.trace
        lines = [
            f"{training.micro_batch_size} x {frames} frames of {height}x{width}, {training.precision}, gradient "
            f"checkpointing {str(training.gradient_checkpointing).lower()}, {self.ranks} GPUs",
            f"{trace.frozen / 1e6:,.1f}M frozen, {trace.trainable / 1e6:,.1f}M trained, {trace.codec / 1e6:,.1f}M VAE "
            f"and image encoder; {trace.flops / 1e12:,.1f} TFLOP a micro-batch",
            "",
            f"{'GB on each GPU':<38}" + "".join(f"{name:>12}" for name in _COLUMNS),
        ]
        for layout, memory in self.memory.items():
            mark = "*" if layout == self.chosen else " "
            cells = "".join(f"{getattr(memory, name) / 1e9:12.1f}" for name in _COLUMNS)
            lines.append(f"{mark} {_describe(layout):<36}{cells}")
        return "\n".join([*lines, "", "* as configured; host: memory of the machine, not of the GPU", *self._verdict()])

    def _verdict(self) -> list[str]:
        if self.gpu_bytes is None:
            return []
        room = f"{self.gpu_bytes / 1e9:.0f} GB"
        if self.fits:
            return [f"fits into {room}: {self.memory[self.chosen].needed / 1e9:.1f} GB needed"]
        if self.recommended is not None:
            return [f"does not fit into {room} as configured; fits with {' '.join(self.recommended.overrides)}"]
        return [f"does not fit into {room} with any of these layouts; see the settings below"]


def plan_run(config: RunConfig, ranks: int, gpu_bytes: int | None = None, *, count_flops: bool = False) -> RunPlan:
    """Predict the memory of a run; takes seconds, on the CPU, and no weights.

    Args:
        config: of the run.
        ranks: GPUs.
        gpu_bytes: memory of one.
        count_flops: also count operations, which takes twice as long.

    Raises:
        UserError: see `trace_step`.
    """
    trace = trace_step(config, count_flops=count_flops)
    whole = config.optimizer.kind == "muon"  # no other layout than ZeRO 0
    plan = RunPlan(config, ranks, gpu_bytes, trace, {})
    layouts = (plan.chosen,) if whole else LAYOUTS if plan.chosen in LAYOUTS else (*LAYOUTS, plan.chosen)
    memory = {
        layout: rank_memory(
            trace,
            layout,
            ranks,
            bf16=config.training.precision == "bf16",
            shard_frozen=config.training.shard_frozen,
            moments=1 if whole else 2,
        )
        for layout in layouts
    }
    return replace(plan, memory=memory)


def remedies(plan: RunPlan) -> list[tuple[str, int]]:
    """Settings that save memory on each GPU: (setting, bytes saved), the largest saving first.

    Each is the config with this one change; savings do not add up.
    """
    now = plan.memory[plan.chosen].needed
    saved = []
    for setting, changed in _smaller(plan):
        after = plan_run(changed, plan.ranks)
        saved.append((setting, now - after.memory[after.chosen].needed))
    for layout in plan.memory:
        saved.append((" ".join(layout.overrides), now - plan.memory[layout].needed))
    return sorted([entry for entry in saved if entry[1] > 0], key=lambda entry: -entry[1])


def _smaller(plan: RunPlan) -> Iterator[tuple[str, RunConfig]]:
    config, training = plan.config, plan.config.training
    if training.gradient_checkpointing is not True:
        yield "training.gradient_checkpointing=true", _with(config, "training", gradient_checkpointing=True)
    if training.micro_batch_size > 1:
        half = training.micro_batch_size // 2
        more = training.gradient_accumulation * 2
        setting = f"training.micro_batch_size={half} training.gradient_accumulation={more}"
        yield setting, _with(config, "training", micro_batch_size=half, gradient_accumulation=more)
    height, width, frames = largest_bucket(config)
    if config.data.buckets is None:
        if frames > 8:
            yield f"data.num_frames={frames // 2}", _with(config, "data", num_frames=frames // 2)
        smaller = [side * 3 // 4 // 64 * 64 for side in (height, width)]
        if min(smaller) >= 128:
            yield f"data.size=[{smaller[0]},{smaller[1]}]", _with(config, "data", size=tuple(smaller))


def _with(config: RunConfig, section: str, **changes: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})


def _describe(layout: Layout) -> str:
    moved = {"optimizer": layout.offload_optimizer, "weights": layout.offload_parameters}
    where = " and ".join(name for name, there in moved.items() if there)
    return f"ZeRO {layout.stage}" + (f", {where} on host" if where else "")
