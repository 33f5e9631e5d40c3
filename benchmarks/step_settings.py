"""Other settings of our step, measured one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from step_variants import OurStep, make_batch, stop_checkpointing

Measurer = Callable[..., dict[str, Any]]
"""Given steps by name, measures them."""
Extra = Callable[[Measurer], dict[str, Any]]
Setting = Callable[[OurStep], Any]
"""A context: what is entered for a measurement and left after it."""

BOTH, LISA, GRAPHS = ("plain", "lisa"), ("lisa",), ("plain_graph", "lisa_graph", "lisa")


def settings_of(ours: OurStep) -> dict[str, Extra]:
    """Other settings of our step: by name, a function that is given what measures steps."""
    named = {
        "uncached": _measured(ours, LISA, _uncached),
        "joint": _measured(ours, ("joint",)),
        "decoder_activations_kept": _measured(ours, BOTH, _decoder_kept),
        "cudnn_benchmark": _measured(ours, BOTH, _cudnn_benchmark),
        "channels_last": _measured(ours, BOTH, _channels_last),
    }
    if ours.setting.full:
        named = {"576x1024": _measured(ours, LISA, _larger)} | named
    if ours.setting.device == "cuda":
        named = {
            "graphs": _measured(ours, GRAPHS, _graphs),
            "graphs_cudnn_benchmark": _measured(ours, GRAPHS, _cudnn_benchmark, _graphs),
            "graphs_decoder_kept": _measured(ours, GRAPHS, _decoder_kept, _graphs),
            "graphs_channels_last": _measured(ours, GRAPHS, _channels_last, _graphs),
        } | named
    return named


def _measured(ours: OurStep, modes: tuple[str, ...], *settings: Setting) -> Extra:
    def measured(measure: Measurer) -> dict[str, Any]:
        with ExitStack() as stack:
            for setting in settings:
                stack.enter_context(setting(ours))
            return measure({mode: ours.step_of(mode) for mode in modes})

    return measured


@contextmanager
def _cudnn_benchmark(_: OurStep) -> Iterator[None]:
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


@contextmanager
def _channels_last(ours: OurStep) -> Iterator[None]:
    weights = [p for p in ours.parts.backbone.parameters() if p.ndim == 4]
    for p in weights:
        p.data = p.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for p in weights:
            p.data = p.data.contiguous()


@contextmanager
def _uncached(ours: OurStep) -> Iterator[None]:
    ours.cached = False
    try:
        yield
    finally:
        ours.cached = True


@contextmanager
def _larger(ours: OurStep) -> Iterator[None]:
    smaller = ours.batch
    ours.batch = make_batch(ours.setting.changed(height=576, width=1024))
    try:
        yield
    finally:
        ours.batch = smaller


@contextmanager
def _decoder_kept(ours: OurStep) -> Iterator[None]:
    forwards = stop_checkpointing(ours.parts.backbone)
    try:
        yield
    finally:
        for module, forward in forwards:
            module.forward = forward


@contextmanager
def _graphs(ours: OurStep) -> Iterator[None]:
    ours.switch.capture(ours.encode())
    try:
        yield
    finally:
        ours.switch.graphed.clear()
