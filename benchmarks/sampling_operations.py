"""Floating-point operations of one sampling step of SVD's real size under each kind of guidance, on the meta device.

Codec and image encoder are left out: they run once a clip. No GPU is needed, and it takes half a minute.

    python benchmarks/sampling_operations.py
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from step_operations import MetaStep, counted
from step_variants import FULL

from lisa_video.config.schema import SamplingConfig
from lisa_video.models.backbone import Condition
from lisa_video.pipeline import PoseVideoPipeline

RESULT = Path(__file__).parent / "results/sampling_operations.json"
_GUIDED = {"guidance_first": 1.0, "guidance_last": 3.0}
WAYS = {
    "no guidance": SamplingConfig(guidance_last=1.0),
    "pose_guidance": SamplingConfig(guidance_last=1.0, pose_guidance=2.0),
    "guidance, unconditional_pose: driving": SamplingConfig(**_GUIDED),
    "guidance, unconditional_pose: none": SamplingConfig(**_GUIDED, unconditional_pose="none"),
    "guidance, unconditional_pose: none, pose_guidance": SamplingConfig(
        **_GUIDED, unconditional_pose="none", pose_guidance=2.0
    ),
}


def main() -> None:
    """Count, print, write `results/sampling_operations.json`."""
    setting = FULL.changed(device="meta", precision="fp32", checkpointing=False)
    step = MetaStep(setting)
    pipeline = PoseVideoPipeline.untrained(step.config, step.parts, step.model.branch)
    x_s, maps = step.batch.latents.to("meta"), step.batch.pose_maps.to("meta")
    one = torch.empty(len(x_s), device="meta")
    pictures = torch.empty_like(x_s[:, 0])
    condition = Condition(pictures, step.batch.embedding.to("meta"), torch.empty(len(x_s), 3, device="meta"))
    found = {}
    for name, sampling in WAYS.items():
        pipeline.sampling = sampling
        with torch.device("meta"), torch.no_grad():
            denoise = pipeline._denoise(condition, maps, x_s.shape[1])
            found[name] = counted(lambda denoise=denoise: denoise(x_s, one))
    text = json.dumps({"setting": asdict(setting), "operations": found}, indent=1)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)
    for name, count in found.items():
        print(f"{name:52s} {count / 1e12:6.1f} TFLOP  {count / found['no guidance']:.2f}")


if __name__ == "__main__":
    main()
