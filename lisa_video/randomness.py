"""Random numbers as a function of (seed, sample position, purpose), never of rank, batch split or device.

Every clip that training sees has a position: 0, 1, 2, ... since the start of the run. All that is random about it
(noise level, noise, dropout) is drawn from a generator keyed by that position, on the CPU. Hence a run on two ranks
sees the same numbers as one on eight with the same batch size, and a resumed run the same as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def generator(seed: int, key: int | str, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose ("noise", "sigma", ...) of one clip (its position, or its name)."""
    digest = hashlib.blake2b(f"{seed}/{key}/{purpose}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def normal(
    shape: Sequence[int], seed: int, keys: Sequence[int | str], purpose: str, device: torch.device | str = "cpu"
) -> Float[Tensor, "B ..."]:
    """Standard normal numbers of the given shape for each key, stacked."""
    draws = [torch.randn(*shape, generator=generator(seed, key, purpose)) for key in keys]
    return torch.stack(draws).to(device)


def uniform(
    seed: int, keys: Sequence[int | str], purpose: str, device: torch.device | str = "cpu"
) -> Float[Tensor, " B"]:
    """One uniform number in (0, 1) for each key."""
    draws = [torch.rand((), generator=generator(seed, key, purpose), dtype=torch.float64) for key in keys]
    return torch.stack(draws).clamp(1e-6, 1 - 1e-6).float().to(device)
