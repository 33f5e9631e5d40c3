"""How fast a run is, at every log line: clips a second, parts of a step, utilisation, memory.

In a file of its own, `speed.jsonl`: what stands in `metrics.jsonl` is the same in every repetition of a run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import psutil
import torch

from lisa_video.config.schema import RunConfig
from lisa_video.planning.trace import trace_step

# Dense bf16 operations a second by data sheet; the first name that is part of the device's name counts.
_PEAK_FLOPS = {
    "B200": 2250e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX A6000": 155e12,
    "RTX 3090": 71e12,
}
_PATIENCE = 60.0  # seconds of training before operations are counted: short runs do not pay for it


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 operations a second of a GPU; None if it is not in the table."""
    return next((peak for name, peak in _PEAK_FLOPS.items() if name in device_name), None)


@final
class Telemetry:
    """Clock of the parts of a step, and what is reported of speed and memory of this rank.

    Args:
        config: of the run.
        device: of this rank.
        clips_per_step: over all ranks.
    """

    def __init__(self, config: RunConfig, device: torch.device, clips_per_step: int) -> None:
        self.config, self.device, self.clips_per_step = config, device, clips_per_step
        self._gpu = device.type == "cuda"
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._steps, self._total = 0, 0.0
        self._flops: int | None = None
        self._last: tuple[int, float] | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the step: on a GPU by events in its queue, so that nothing waits."""
        # Waiting for data is something that the host does.
        mark = self._mark if name != "data" else time.perf_counter
        started = mark()
        try:
            yield
        finally:
            self._spans[name].append((started, mark()))

    def report(self, step: int, seconds: float) -> dict[str, float]:
        """Values since the last report.

        Args:
            step: optimizer steps done.
            seconds: spent in training steps, both since the start of the run.
        """
        last_step, last_seconds = self._last or (step, seconds)
        self._last = (step, seconds)
        if self._gpu:
            torch.cuda.synchronize()
        parts = {name: sum(_seconds(*span) for span in spans) for name, spans in self._spans.items()}
        self._spans.clear()
        steps, taken = step - last_step, seconds - last_seconds
        if not steps or taken <= 0:
            return {}
        values = {"clips_per_second": steps * self.clips_per_step / taken, "seconds_per_step": taken / steps}
        values |= {f"seconds_per_step/{name}": total / steps for name, total in parts.items()}
        values["host_gb"] = psutil.Process().memory_info().rss / 1e9
        if self._gpu:
            values["gpu_gb"] = torch.cuda.memory_allocated() / 1e9
            values["gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            torch.cuda.reset_peak_memory_stats()
            utilisation = self._utilisation(taken / steps, seconds)
            values |= {} if utilisation is None else {"mfu": utilisation}
        return values

    def _utilisation(self, seconds_per_step: float, since_start: float) -> float | None:
        """Operations that the model needs, without recomputation, over what the GPU could do in that time."""
        training, lisa = self.config.training, self.config.lisa
        peak = peak_flops(torch.cuda.get_device_name(self.device))
        if peak is None or training.precision != "bf16" or since_start < _PATIENCE:
            return None
        if self.config.data.buckets is not None or (lisa is not None and lisa.every > 1):
            return None  # steps of different sizes
        if self._flops is None:
            self._flops = trace_step(self.config).model_flops
        return self._flops * training.gradient_accumulation / (seconds_per_step * peak)

    def _mark(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _seconds(start: Any, end: Any) -> float:
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1000)
