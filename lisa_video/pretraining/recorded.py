"""Functions recorded as CUDA graphs: a small network's kernels are shorter than the time it takes to launch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_WARM_UP = 3


def capture(function: Callable[[], Any], generator: torch.Generator | None = None) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Record a function as a graph, after it has run a few times; returns the graph and the memory of its results."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        results = function()
    torch.cuda.synchronize()
    return graph, results
