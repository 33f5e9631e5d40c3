"""Other settings of our step, measured one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from step_variants import OurStep, make_batch, stop_checkpointing

Measurer = Callable[..., dict[str, Any]]
"""Given steps by name, measures them."""
Extra = Callable[[Measurer], dict[str, Any]]


def settings_of(ours: OurStep) -> dict[str, Extra]:
    """Other settings of our step: by name, a function that is given what measures steps."""
    lisa, both = {"lisa": ours.step_of("lisa")}, {mode: ours.step_of(mode) for mode in ("plain", "lisa")}

    def tuned(measure: Measurer) -> dict[str, Any]:
        torch.backends.cudnn.benchmark = True
        try:
            return measure(both)
        finally:
            torch.backends.cudnn.benchmark = False

    def channels_last(measure: Measurer) -> dict[str, Any]:
        for p in ours.parts.backbone.parameters():
            if p.ndim == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        try:
            return measure(both)
        finally:
            for p in ours.parts.backbone.parameters():
                p.data = p.data.contiguous()

    def uncached(measure: Measurer) -> dict[str, Any]:
        ours.cached = False
        try:
            return measure(lisa)
        finally:
            ours.cached = True

    def larger(measure: Measurer) -> dict[str, Any]:
        smaller = ours.batch
        ours.batch = make_batch(ours.setting.changed(height=576, width=1024))
        try:
            return measure(lisa)
        finally:
            ours.batch = smaller

    def kept(measure: Measurer) -> dict[str, Any]:
        forwards = stop_checkpointing(ours.parts.backbone)
        try:
            return measure(both)
        finally:
            for module, forward in forwards:
                module.forward = forward

    def graphs(measure: Measurer) -> dict[str, Any]:
        ours.switch.capture(ours.encode())
        try:
            return measure({mode: ours.step_of(mode) for mode in ("plain_graph", "lisa_graph", "lisa")})
        finally:
            ours.switch.graphed.clear()

    def within(outer: Any, inner: Any) -> Extra:
        return lambda measure: outer(lambda _: inner(measure))

    on_gpu = ours.setting.device == "cuda"
    named: dict[str, Extra] = {
        "uncached": uncached,
        "joint": lambda measure: measure({"joint": ours.step_of("joint")}),
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
    return (captured if on_gpu else {}) | ({"576x1024": larger} if ours.setting.full else {}) | named
