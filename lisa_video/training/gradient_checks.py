"""Norm and finiteness of all gradients in one kernel each.

DeepSpeed's ZeRO 1 and 2 ask every gradient by itself: some ten kernels for each of 700 tensors. At SVD's size on an
H100 its optimizer step took 0.2 s, most of it for these launches (docs/speed.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def check_gradients_at_once(optimizer: Any) -> None:
    """Replace two methods of a DeepSpeed ZeRO 1 or 2 optimizer without offload; results agree up to rounding."""

    def norm(gradients: list[Tensor], params: list[Tensor], norm_type: float = 2) -> Tensor:
        total = joint_norm([g for g in gradients if not getattr(g, "_zero_padding", False)]).square()
        dist.all_reduce(total, group=optimizer.dp_process_group)
        total = total.sqrt()
        return torch.where(total.isfinite(), total, -1.0)  # DeepSpeed's word for "not finite"

    def overflow() -> Tensor:
        groups = range(len(optimizer.bit16_groups))
        return not_finite([g for group in groups for g in optimizer.averaged_gradients[group] if g is not None])

    optimizer.get_grad_norm_direct = norm
    optimizer.has_overflow_partitioned_grads_serial = overflow


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm over all elements, float32 scalar."""
    norms = torch._foreach_norm(tensors, 2, dtype=torch.float32)
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def not_finite(tensors: list[Tensor]) -> Tensor:
    """(1,) bool: whether any element is infinite or not a number."""
    largest = torch.stack(torch._foreach_norm(tensors, float("inf")))
    found: Tensor = ~largest.isfinite().all()
    return found.view(1)
