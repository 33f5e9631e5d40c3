"""Where the time of a LISA step goes: by part of the step, and by kind of kernel."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from step_variants import OurStep, Setting

# Kernels by words in their names; the first that matches counts.
_KINDS = (
    ("attention", ("flash", "fmha", "attention", "sdpa")),
    ("convolution", ("conv", "implicit", "cudnn", "dgrad", "wgrad", "fprop", "slow_conv", "mkldnn_convolution")),
    ("layout change", ("nchwtonhwc", "nhwctonchw", "transpose", "permute")),
    ("matrix product", ("gemm", "addmm", "::mm", "bmm", "cutlass", "cublas", "nvjet", "linear")),
    ("normalisation", ("norm", "rowwisemoments", "computefusedparams", "computeinternalgradients")),
    ("optimizer", ("adam", "lerp", "multi_tensor", "foreach")),
    ("copy and cast", ("copy", "memcpy", "memset", "cat", "fill", "_to_copy", "direct_copy")),
    ("elementwise", ("elementwise", "vectorized", "reduce", "silu", "gelu", "add", "mul", "sum", "where")),
)


def profile(ours: OurStep, setting: Setting, repeats: int = 3) -> dict[str, Any]:
    """Seconds by part (each waits for the device: more than a free step's), and by kind of kernel in one step."""
    ours.switch.mode = "lisa"
    rounds = []
    for _ in range(repeats):
        with _timed_parts(ours, setting) as seconds:
            ours()
        rounds.append(dict(seconds))
    parts = {name: round(statistics.median(round_[name] for round_ in rounds), 4) for name in rounds[0]}
    return {"seconds_by_part": parts, **_kernels(ours, setting)}


@contextmanager
def _timed_parts(ours: OurStep, setting: Setting) -> Iterator[dict[str, float]]:
    seconds: dict[str, float] = defaultdict(float)

    def now() -> float:
        if setting.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = now()
            result = function(*args, **kwargs)
            seconds[name(*args)] += now() - started
            return result

        return run

    model, engine = ours.model, getattr(ours.engine, "_deepspeed", None)
    places: list[tuple[Any, str, Callable[..., str]]] = [
        (ours, "encode", lambda *_: "codec: noisy reference"),
        (model.backbone, "encode", lambda *_: "frozen encoder half"),
        (model.backbone, "decode", lambda _, residuals: "decoder half, " + ("m0" if residuals is None else "m")),
        (model.branch, "forward", lambda *_: "branch"),
        (model.decoder, "forward", lambda *_: "LISA decoder"),
        (ours, "update_average", lambda *_: "moving average"),
    ]
    places += [(engine, "backward", lambda *_: "backward"), (engine, "step", lambda *_: "optimizer")] if engine else []
    for place, attribute, name in places:
        place.__dict__[attribute] = timed(getattr(place, attribute), name)
    started = now()
    try:
        yield seconds
    finally:
        seconds["rest"] = now() - started - sum(seconds.values())
        for place, attribute, _ in places:
            del place.__dict__[attribute]


def _kernels(ours: OurStep, setting: Setting) -> dict[str, Any]:
    gpu = setting.device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if gpu else [])
    with torch.profiler.profile(activities=activities) as profiled:
        started = time.perf_counter()
        ours()
        if gpu:
            torch.cuda.synchronize()
        wall = time.perf_counter() - started
    kinds: dict[str, float] = defaultdict(float)
    longest, launches = [], 0
    for event in profiled.key_averages():
        if gpu and str(event.device_type).endswith("CPU"):
            continue
        own = (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6
        launches += event.count if gpu else 0
        kinds[_kind(event.key)] += own
        longest.append((round(own, 4), event.count, event.key[:120]))
    return {
        "seconds_by_kind": {name: round(value, 4) for name, value in sorted(kinds.items(), key=lambda item: -item[1])},
        "longest": sorted(longest, reverse=True)[:20],
        "device_seconds": round(sum(kinds.values()), 4),
        "wall_seconds_while_profiled": round(wall, 4),
        "kernels": launches,
    }


def _kind(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, words in _KINDS if any(word in lower for word in words)), "other")
