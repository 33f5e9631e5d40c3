"""One training step, four ways, in one run: time, memory, ratios.

    plain         our step without LISA: latents from the cache, frozen encoder half once and without gradients
    lisa          our step
    two_forwards  LISA as published: the frozen network runs twice as a whole
    public        the plain step in the manner of the public SVD ControlNet scripts: VAE and image encoder inside the
                  loop, frozen network as one pass with autograd on, float32 branch under autocast, AdamW

The first three go through the real `Engine` (DeepSpeed), `Objective`, `encode_batch` and `MovingAverage`. Steps are
interleaved and compared by medians, since machines are shared. The JSON file is written after each part.

    python benchmarks/training_step.py                     # tiny, any CPU
    python benchmarks/training_step.py --full              # SVD's size with random weights, bf16, one GPU of 80 GB
    python benchmarks/training_step.py --full --profile    # and where the time goes
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from step_profile import profile
from step_public import PublicStep
from step_settings import settings_of
from step_variants import FULL, TINY, OurStep, Setting, make_batch, run_config

from lisa_video.distributed import prepare_environment
from lisa_video.planning.plan import plan_run
from lisa_video.training.telemetry import peak_flops

RESULTS = Path(__file__).parent / "results"
PAIRS = (
    ("lisa", "plain"),
    ("two_forwards", "plain"),
    ("lisa", "two_forwards"),
    ("lisa", "public"),
    ("plain", "public"),
    ("lisa_graph", "plain_graph"),
    ("lisa_graph", "lisa"),
)


class Report:
    """The JSON file, rewritten after each part."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self.path = path
        self.values: dict[str, Any] = {
            "hardware": hardware(setting),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "clock": "CPU seconds of the process" if setting.device == "cpu" else "wall seconds, synchronised",
            "setting": asdict(setting),
        }

    def add(self, **values: Any) -> None:
        """Add parts and write."""
        self.values |= values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, self.path)

    def attempt(self, name: str, part: Callable[[], dict[str, Any]]) -> None:
        """Run one part; an error is recorded and the rest goes on."""
        started = time.perf_counter()
        try:
            result = part()
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
            traceback.print_exc()
        took = round(time.perf_counter() - started, 1)
        self.add(**{name: {**result, "wall_seconds_of_this_part": took}})
        print(f"{name} ({took} s): {json.dumps(self.values[name])[:1500]}", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def hardware(setting: Setting) -> str:
    """Name of the processor that is measured."""
    if setting.device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def now(setting: Setting) -> float:
    """Seconds; what other processes take of a CPU does not count."""
    if setting.device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Measure:
    """Times and peaks of named steps.

    Args:
        setting: sizes and repeats.
        steps: by name; called without arguments.
        others: bytes on the GPU that belong to steps of other parts, by name: not counted in a step's peak.
    """

    def __init__(self, setting: Setting, steps: dict[str, Callable[[], Any]], others: dict[str, int]) -> None:
        self.setting, self.steps, self.others = setting, steps, others
        self.seconds: dict[str, list[float]] = {name: [] for name in steps}
        self.peaks: dict[str, int] = {}

    def interleaved(self, repeats: int, warm_up: int = 2) -> None:
        """All steps by turns, in changing order."""
        names = list(self.steps)
        for repeat in range(-warm_up, repeats):
            first = repeat % len(names)
            for name in names[first:] + names[:first]:
                self._one(name, kept=repeat >= 0)

    def _one(self, name: str, *, kept: bool) -> None:
        gpu = self.setting.device == "cuda"
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        started = now(self.setting)
        self.steps[name]()
        taken = now(self.setting) - started
        if kept:
            self.seconds[name].append(taken)
            if gpu:
                own = torch.cuda.max_memory_allocated() - self.others.get(name, 0)
                self.peaks[name] = max(own, self.peaks.get(name, 0))

    def results(self) -> dict[str, Any]:
        """Medians, quartiles, ratios, peaks."""
        median = {name: statistics.median(values) for name, values in self.seconds.items() if values}
        out: dict[str, Any] = {
            "seconds": {
                name: {"median": round(median[name], 4), "all": [round(value, 4) for value in self.seconds[name]]}
                for name in median
            },
            "time_ratios": {f"{a}/{b}": round(median[a] / median[b], 3) for a, b in PAIRS if {a, b} <= median.keys()},
        }
        if self.peaks:
            out["peak_bytes"] = self.peaks
        return out


def add_plan(path: Path) -> None:
    """Put what the memory plan predicts beside what was measured on a GPU, and the utilisation, into a result file."""
    result = json.loads(path.read_text(encoding="utf-8"))
    setting = Setting(**result["setting"])
    measured = {
        ("lisa", setting.checkpointing, setting.height, setting.width): result["core"],
        ("lisa", "branch", setting.height, setting.width): result.get("extra_decoder_activations_kept", {}),
        ("lisa", setting.checkpointing, 576, 1024): result.get("extra_576x1024", {}),
    }
    rows = []
    for (mode, checkpointing, height, width), part in measured.items():
        if mode not in part.get("peak_bytes", {}):
            continue
        config = run_config(setting.changed(checkpointing=checkpointing, height=height, width=width))
        main_setting = not rows
        plan = plan_run(config, 1, count_flops=main_setting)
        predicted, peak = plan.memory[plan.chosen].peak, part["peak_bytes"][mode]
        rows.append(
            {
                "checkpointing": checkpointing,
                "size": [height, width],
                "predicted_peak": predicted,
                "measured_peak": peak,
                "predicted/measured": round(predicted / peak, 3),
            }
        )
        if main_setting:
            flops = {"flops": plan.trace.flops, "model_flops": plan.trace.model_flops}
            gpu = peak_flops(result["hardware"])
            if gpu is not None:
                flops["mfu"] = round(plan.trace.model_flops / part["seconds"][mode]["median"] / gpu, 4)
            result["operations"] = flops
    result["memory_plan"] = rows
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("operations", "memory_plan")}, indent=1))


def main() -> None:
    """Measure, print, write `results/training_step_NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="SVD's size on a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="of the tiny size")
    parser.add_argument("--repeats", type=int, help="timed steps of each variant")
    parser.add_argument(
        "--extras", nargs="*", metavar="NAME", help="other settings of our step, one by one; default: all"
    )
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further part after this time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--add-plan", type=Path, metavar="JSON", help="only add the memory plan to a result; any CPU")
    arguments = parser.parse_args()
    if arguments.add_plan is not None:
        add_plan(arguments.add_plan)
        return
    began = time.perf_counter()
    setting = (FULL if arguments.full else TINY).changed(device=arguments.device, repeats=arguments.repeats)
    if setting.device == "cpu":
        torch.set_num_threads(1)
    prepare_environment()
    suffix = "full" if arguments.full else "tiny"
    report = Report(arguments.out / f"training_step_{suffix}_{setting.device}.json", setting)
    report.add()

    def in_time(name: str, part: Callable[[], dict[str, Any]]) -> None:
        if time.perf_counter() - began < arguments.seconds:
            report.attempt(name, part)
        else:
            report.add(**{name: {"skipped": f"{arguments.seconds:.0f} s were over"}})

    batch = make_batch(setting)
    ours = OurStep(setting, batch)
    report.add(engine=ours.engine_name, static_bytes=ours.static_bytes)
    steps = {mode: ours.step_of(mode) for mode in ("plain", "lisa", "two_forwards")}
    public: list[PublicStep] = []

    def add_public() -> dict[str, Any]:
        public.append(PublicStep(setting, batch, ours))
        return {"static_bytes": public[0].static_bytes, "branch_checkpointing": setting.checkpointing is not False}

    def core() -> dict[str, Any]:
        own = {mode: public[0].static_bytes if public else 0 for mode in steps}
        if public:
            steps["public"], own["public"] = public[0], ours.static_bytes - public[0].shared_bytes
        measure = Measure(setting, steps, own)
        measure.interleaved(setting.repeats)
        return measure.results()

    in_time("public_setup", add_public)
    in_time("core", core)
    steps.pop("public", None)
    public.clear()
    if "error" in report.values["core"]:  # perhaps the public step alone is too large
        gc.collect()
        in_time("core_without_public", core)
    if arguments.profile:
        in_time("profile", lambda: profile(ours, setting))
    if arguments.extras is not None:
        extras = settings_of(ours)
        for name in arguments.extras or extras:
            extra = extras[name]
            in_time(f"extra_{name}", lambda extra=extra: extra(lambda steps: _short(setting, steps)))
    print(report.path)


def _short(setting: Setting, steps: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    measure = Measure(setting, steps, {})
    measure.interleaved(max(setting.repeats // 2, 2), warm_up=1)
    return measure.results()


if __name__ == "__main__":
    main()
