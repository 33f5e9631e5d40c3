"""Time and memory of one training step: plain ControlNet, LISA on the split forward, and LISA as published.

Published LISA runs the frozen network twice, with and without residuals. Its encoder half is the same both times; our
split forward computes it once. Steps are interleaved and compared by medians, since machines are shared; the memory
of each variant is measured in a process of its own.

    python benchmarks/lisa_step.py            # tiny, any CPU
    python benchmarks/lisa_step.py --full     # SVD's real size with random weights, bf16, on a GPU of 40 GB or more
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from lisa_video.conditioning import EncodedBatch
from lisa_video.diffusion.edm import EDMProcess
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.models.backbone import Condition
from lisa_video.models.controlled import ControlledDenoiser, Prediction
from lisa_video.models.lisa_decoder import LISADecoder
from lisa_video.models.svd.backbone import SVDBackbone
from lisa_video.models.svd.side_branch import TemporalControlNet
from lisa_video.models.svd.tiny import tiny_unet
from lisa_video.objective import LISAWeight, Objective

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("controlnet", "lisa", "lisa_two_forwards")
_DECODER_LAYER = "down_5"


@dataclass(frozen=True)
class Setting:
    """Sizes of a measurement."""

    name: str
    device: str
    dtype: str
    clips: int
    frames: int
    latent_side: int
    latent_stride: int
    checkpointing: bool
    repeats: int


TINY = Setting("cpu", "cpu", "float32", 2, 8, 16, 4, checkpointing=False, repeats=15)
FULL = Setting("full", "cuda", "bfloat16", 1, 14, 64, 8, checkpointing=True, repeats=10)


class TwoForwards(nn.Module):
    """LISA as published: the whole frozen network runs with residuals, and again without."""

    def __init__(self, model: ControlledDenoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_s: Tensor, s: Tensor, condition: Condition, pose_maps: Tensor) -> Prediction:
        """See `ControlledDenoiser`."""
        model = self.model
        backbone, dtype, decoder = model.backbone, model.dtype, model.decoder
        model_input, t = backbone.process.model_input(x_s, s).to(dtype), backbone.process.timestep(s)
        condition = Condition(*(part.to(dtype) for part in condition[:2]), condition.time_ids)
        branch = model.branch(model_input, t, condition, pose_maps.to(dtype))
        controlled = backbone.decode(backbone.encode(model_input, t, condition), branch.residuals).float()
        with torch.no_grad():
            frozen = backbone.decode(backbone.encode(model_input, t, condition), None).float()
        assert decoder is not None
        lisa = decoder(branch.features[model.feature_index], t, tuple(x_s.shape[-2:])).float()
        return Prediction(controlled, frozen, lisa)


class Bench:
    """The models of all variants around one frozen network and one branch, and their steps."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting, dtype = setting, getattr(torch, setting.dtype)
        unet = tiny_unet() if setting.device == "cpu" else UNetSpatioTemporalConditionModel()
        pose_channels = (16, 32, 64) if setting.device == "cpu" else (16, 32, 96, 256)
        branch = TemporalControlNet.from_unet(unet, pose_channels=pose_channels, pose_last_init="default")
        if setting.checkpointing:
            unet.enable_gradient_checkpointing()
            branch.enable_gradient_checkpointing()
        backbone = SVDBackbone(unet)
        decoder = LISADecoder(*branch.feature_specs[_DECODER_LAYER], 4)
        plain = ControlledDenoiser(backbone, branch)
        lisa = ControlledDenoiser(backbone, branch, decoder, _DECODER_LAYER).to(setting.device, dtype)
        self.models = {"controlnet": plain, "lisa": lisa, "lisa_two_forwards": TwoForwards(lisa)}
        self.optimizers = {
            name: torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-6)
            for name, model in self.models.items()
        }
        self.objective = Objective(EDMProcess(), LogNormalSigma(), lisa_weight=LISAWeight(0.2), seed=0)
        self.batch = self._batch(unet.config.cross_attention_dim)

    def _batch(self, embedding: int) -> EncodedBatch:
        s, side = self.setting, self.setting.latent_side
        pixels = side * s.latent_stride
        condition = Condition(
            torch.randn(s.clips, 4, side, side, device=s.device),
            torch.randn(s.clips, 1, embedding, device=s.device),
            torch.tensor([[6.0, 127.0, 0.02]] * s.clips, device=s.device),
        )
        latents = torch.randn(s.clips, s.frames, 4, side, side, device=s.device)
        pose_maps = torch.rand(s.clips, s.frames, 3, pixels, pixels, device=s.device)
        return EncodedBatch(latents, condition, pose_maps, tuple(range(s.clips)))

    def step(self, variant: str) -> float:
        """One optimizer step; returns CPU seconds of this process, or seconds on a GPU."""
        started = self._now()
        self.objective(self.models[variant], self.batch).total.backward()
        self.optimizers[variant].step()
        self.optimizers[variant].zero_grad(set_to_none=True)
        return self._now() - started

    def _now(self) -> float:
        if self.setting.device == "cpu":
            return time.process_time()  # what other processes take does not count
        torch.cuda.synchronize()
        return time.perf_counter()


def measure_times(setting: Setting) -> dict[str, list[float]]:
    """Seconds of each variant's steps, interleaved in changing order, after two rounds of warm-up."""
    bench, seconds = Bench(setting), {variant: [] for variant in VARIANTS}
    for repeat in range(-2, setting.repeats):
        first = repeat % len(VARIANTS)
        for variant in VARIANTS[first:] + VARIANTS[:first]:
            taken = bench.step(variant)
            if repeat >= 0:
                seconds[variant].append(taken)
    return seconds


def measure_memory(setting: Setting, variant: str) -> dict[str, float]:
    """MiB of this process: all of it at the peak, and what the steps took above the built models."""
    bench = Bench(setting)
    gc.collect()
    before = _memory_now(setting)
    for _ in range(2):
        bench.step(variant)
    if setting.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"peak_mib": round(peak, 1), "steps_mib": round(peak - before, 1)}


def _memory_now(setting: Setting) -> float:
    if setting.device == "cpu":
        resident_pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return resident_pages * resource.getpagesize() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def hardware(setting: Setting) -> str:
    """Name of the processor that was measured."""
    if setting.device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(setting: Setting, seconds: dict[str, list[float]], memory: dict[str, dict[str, float]]) -> dict[str, object]:
    """Medians, quartiles and ratios, as JSON values."""
    median = {variant: statistics.median(values) for variant, values in seconds.items()}
    pairs = (("lisa", "controlnet"), ("lisa_two_forwards", "controlnet"), ("lisa_two_forwards", "lisa"))
    return {
        "hardware": hardware(setting),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the process" if setting.device == "cpu" else "wall seconds, synchronised",
        "setting": asdict(setting),
        "seconds": {
            variant: {"median": round(median[variant], 4), "quartiles": [round(q, 4) for q in quartiles(values)]}
            for variant, values in seconds.items()
        },
        "time_ratios": {f"{a}/{b}": round(median[a] / median[b], 3) for a, b in pairs},
        "memory": memory,
        "memory_ratios": {f"{a}/{b}": round(memory[a]["steps_mib"] / memory[b]["steps_mib"], 3) for a, b in pairs},
    }


def quartiles(values: list[float]) -> tuple[float, float]:
    """First and third."""
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def main() -> None:
    """Measure, print a table, write `results/lisa_step_NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="SVD's size on a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = FULL if arguments.full else TINY
    if setting.device == "cpu":
        torch.set_num_threads(1)
    if arguments.memory_of:
        print(json.dumps(measure_memory(setting, arguments.memory_of)))
        return
    memory = {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, "--memory-of", variant, *(["--full"] if arguments.full else [])]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        memory[variant] = json.loads(output.splitlines()[-1])
    result = report(setting, measure_times(setting), memory)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"lisa_step_{setting.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{'variant':20}{'median s':>10}{'peak MiB':>11}{'steps MiB':>11}")
    for variant in VARIANTS:
        seconds, mib = result["seconds"][variant]["median"], memory[variant]
        print(f"{variant:20}{seconds:10.3f}{mib['peak_mib']:11.0f}{mib['steps_mib']:11.0f}")
    print("time  ", result["time_ratios"])
    print("memory", result["memory_ratios"])
    print(path)


if __name__ == "__main__":
    main()
