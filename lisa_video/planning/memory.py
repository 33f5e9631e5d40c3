"""From the trace of a step to the memory of a rank, for each way of splitting it over ranks.

Sizes follow what DeepSpeed 0.19 keeps; they are compared with measured peaks in docs/memory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lisa_video.planning.trace import StepTrace

REDUCE_BUCKET = 50_000_000
"""Gradient elements that are reduced at once (DeepSpeed's own 500 million are 2 GB of buffers)."""
_OVERHEAD = 1.0e9  # bytes of CUDA's context, of cuDNN and of NCCL, which no allocator of ours sees
_FRAGMENTATION = 1.05  # reserved by the allocator for one byte in use
_GATHERED = 0.1  # share of the weights that stage 3 holds whole at a time, at most (`Engine`)


class Layout(NamedTuple):
    """How the state of training is split.

    Attributes:
        stage: of ZeRO: over ranks are split 1 optimizer states, 2 gradients too, 3 weights too.
        offload_optimizer: optimizer states, float32 weights and their average lie in host memory.
        offload_parameters: so do weights that are not in use (stage 3).
    """

    stage: int
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def overrides(self) -> tuple[str, ...]:
        """As settings."""
        chosen = [f"training.zero_stage={self.stage}"]
        chosen += ["training.offload_optimizer=true"] if self.offload_optimizer else []
        chosen += ["training.offload_parameters=true"] if self.offload_parameters else []
        return tuple(chosen)


LAYOUTS = (
    *(Layout(stage) for stage in range(4)),
    Layout(2, offload_optimizer=True),
    Layout(3, offload_optimizer=True),
    Layout(3, offload_optimizer=True, offload_parameters=True),
)
"""From fast to small."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one GPU, and in host memory for it.

    Attributes:
        frozen: weights of the frozen network.
        codec: weights of VAE and image encoder, float32, whole on every rank.
        weights: of branch and decoder, in the type they are computed in.
        optimizer: float32 weights, moments.
        average: the moving average.
        gradients: once the backward pass is over.
        buffers: for reducing gradients, and weights that stage 3 has gathered.
        activations: at the peak of the pass, what is kept for the backward pass and what is being computed.
        step: what the optimizer step needs besides.
        peak: the largest sum at one time; what `torch.cuda.max_memory_allocated` would say.
        host: bytes in host memory.
    """

    frozen: int
    codec: int
    weights: int
    optimizer: int
    average: int
    gradients: int
    buffers: int
    activations: int
    step: int
    peak: int
    host: int

    @property
    def needed(self) -> int:
        """Bytes of a GPU's memory that this asks for: the peak, the allocator's gaps, and CUDA's own part."""
        return int(self.peak * _FRAGMENTATION + _OVERHEAD)


def rank_memory(
    trace: StepTrace, layout: Layout, ranks: int, *, bf16: bool, shard_frozen: bool = True, moments: int = 2
) -> RankMemory:
    """Memory of one rank.

    Args:
        trace: of the run's step.
        layout: how state is split.
        ranks: of the run.
        bf16: whether weights are computed in bf16, with float32 copies in the optimizer.
        shard_frozen: whether stage 3 splits the frozen network too.
        moments: that the optimizer keeps of each weight: AdamW 2, Muon 1 (of vectors 2, which are next to nothing).
    """
    width, trained, stage = (2 if bf16 else 4), trace.trainable, layout.stage
    split = ranks if stage else 1
    owned = -(-trained // split)  # what this rank's optimizer owns
    spread = ranks if stage == 3 else 1
    weights, frozen = width * trained // spread, width * trace.frozen // (spread if shard_frozen else 1)
    own_copies = bf16 or stage > 0
    optimizer, average = 4 * (moments + own_copies) * owned, 4 * owned
    gradients = width * (owned if stage >= 2 else trained)
    # Stages 1 and 2: two buffers, since one is reduced while the other fills; stage 3 has one, and gathered weights.
    buffers = {0: 0, 1: 2, 2: 2, 3: 1}[stage] * width * min(REDUCE_BUCKET, trained)
    if stage == 3:
        buffers += int(width * _GATHERED * (trained + trace.frozen))
    # A flat copy of the gradients and their float32 values.
    step = 0 if not own_copies else (4 * trained if stage == 0 else (width + 4 * bf16) * owned)
    host = 0
    if layout.offload_optimizer:
        host += optimizer + average + 4 * owned + width * owned  # gradients and new weights wait there too
        optimizer = average = step = 0
        gradients = 0 if stage >= 2 else gradients
    if layout.offload_parameters:
        host, weights = host + weights, 0
        if shard_frozen:
            host, frozen = host + frozen, 0
    codec = 4 * trace.codec
    fixed = frozen + codec + weights + optimizer + average
    passes = [(size, size + int(share * gradients)) for size, share in trace.activations]
    activations, in_pass = max(passes, key=lambda sizes: sizes[1])
    peak = fixed + max(in_pass + buffers, trace.encoding, gradients + step)
    return RankMemory(frozen, codec, weights, optimizer, average, gradients, buffers, activations, step, peak, host)
