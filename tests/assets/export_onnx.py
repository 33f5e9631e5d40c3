"""Writes the tests' ONNX files: the trained RTMPose of `mmpose_demo`, and two detectors with known answers.

torch's exporter needs `onnx`, whose protobuf is too new for mediapipe, so it comes from a folder of its own:

    pip install --target runs/onnx onnx
    PYTHONPATH=runs/onnx python tests/assets/export_onnx.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.openmmlab import load_weights

HERE = Path(__file__).parent
CANVAS = 64  # pixels of the detectors' input
CELLS = sum((CANVAS // stride) ** 2 for stride in (8, 16, 32))


class SimCC(nn.Module):
    """An mmpose model from normalised RGB crops to its two distributions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.head(self.model.extract_feat(crops))


def bright_box(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and size (x, y) in pixels of what is brighter than the grey border; one picture."""
    bright = (pictures.mean(dim=1) > 150).float()[0]
    low, high = [], []
    for sums in (bright.amax(dim=0), bright.amax(dim=1)):
        place = torch.arange(CANVAS, dtype=torch.float32)
        low.append((place + (1 - sums) * 1000).amin())
        high.append((place * sums).amax() + 1)
    first, last = torch.stack(low), torch.stack(high)
    return (first + last) / 2, last - first


class Suppressed(nn.Module):
    """As exported with suppression: (1, 2, 5) boxes and their classes; the second box is a weak one."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        centre, size = bright_box(pictures)
        best = torch.cat([centre - size / 2, centre + size / 2, torch.tensor([0.9])])
        return torch.stack([torch.tensor([0.0, 0.0, 8.0, 8.0, 0.2]), best])[None], torch.zeros(1, 2, dtype=torch.int64)


class Raw(nn.Module):
    """As exported without: (1, cells, 5 + 2), of which the first three say something.

    The bright box as a person twice, from two neighbouring cells, and a sure box of the other class.
    """

    def forward(self, pictures: Tensor) -> Tensor:
        centre, size = bright_box(pictures)
        rows = []
        for x, (objectness, person, other) in enumerate([(0.8, 1.0, 0.0), (0.9, 1.0, 0.0), (1.0, 0.0, 1.0)]):
            place = centre / 8 - torch.tensor([float(x), 0.0])
            rows.append(torch.cat([place, (size / 8).log(), torch.tensor([objectness, person, other])]))
        return torch.cat([torch.stack(rows), torch.zeros(CELLS - 3, 7)])[None]


def export(network: nn.Module, example: Tensor, path: Path, outputs: list[str], *, any_batch: bool) -> None:
    axes = {name: {0: "batch"} for name in ["input", *outputs]} if any_batch else None
    torch.onnx.export(
        network.eval(), (example,), str(path), input_names=["input"], output_names=outputs, dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    print(path, path.stat().st_size)


def main() -> None:
    prepare_mmpose()
    from mmpose.apis import init_model

    folder = HERE / "mmpose_demo"
    model = init_model(str(folder / "rtmpose_demo.py"), None, device="cpu")
    load_weights(model, folder / "rtmpose_demo.pth")
    crops = torch.randn(2, 3, *reversed(model.head.input_size))
    export(SimCC(model), crops, folder / "rtmpose_demo.onnx", ["simcc_x", "simcc_y"], any_batch=True)
    picture = torch.zeros(1, 3, CANVAS, CANVAS)
    picture[..., 8:40, 16:32] = 255.0
    export(Suppressed(), picture, HERE / "yolox" / "suppressed.onnx", ["dets", "labels"], any_batch=False)
    export(Raw(), picture, HERE / "yolox" / "raw.onnx", ["output"], any_batch=False)


if __name__ == "__main__":
    main()
