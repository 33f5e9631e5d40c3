"""Speed of our pose step against mmpose's own `MMPoseInferencer`: same frames, boxes, config and weights, in one run.

People's boxes are given to both, so that only the step from boxes to joints is compared. `MMPoseInferencer` takes one
frame at a time, with all its people; ours batches over frames too. Rounds alternate, and medians are compared.

    python benchmarks/pose_step.py --prepare runs/pose_clips.npz      # renders demo clips, once
    python benchmarks/pose_step.py --clips runs/pose_clips.npz        # one CPU thread
    python benchmarks/pose_step.py --clips runs/pose_clips.npz --device cuda

The small network was trained on demo data (tests/assets/mmpose_demo): its joints must agree within 0.5 px, or the
status is 1. RTMPose-m comes from mmpose's config with random weights: only its time says something.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from lisa_video.config.detector import DetectorSettings, PersonSettings
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.mmpose import MMPoseDetector
from lisa_video.pose.detectors.mmpose_imports import prepare_mmpose
from lisa_video.pose.detectors.openmmlab import load_config, load_weights

RESULTS = Path(__file__).parent / "results"
DEMO = Path(__file__).parents[1] / "tests" / "assets" / "mmpose_demo"
RTMPOSE_M = "body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_coco-256x192.py"
TOLERANCE_PX = 0.5


@dataclass(frozen=True)
class Setting:
    """One comparison: which network, and what the frames look like."""

    name: str
    trained: bool  # the demo network, otherwise RTMPose-m with random weights
    columns: int  # of figures in a frame
    rows: int
    figure_px: int
    frames: int
    flip_test: bool = False


SETTINGS = {
    "cpu": (
        Setting("demo network, 4 people", True, 2, 2, 64, 64),
        Setting("demo network, 1 person", True, 1, 1, 64, 64),
        Setting("RTMPose-m, 4 people", False, 2, 2, 320, 6),
        Setting("RTMPose-m, 1 person", False, 1, 1, 320, 16),
    ),
    "cuda": (
        Setting("demo network, 4 people", True, 2, 2, 64, 128),
        Setting("RTMPose-m, 4 people", False, 2, 2, 320, 96),
        Setting("RTMPose-m, 1 person", False, 1, 1, 320, 96),
        Setting("RTMPose-m, 4 people, flip test", False, 2, 2, 320, 64, flip_test=True),
    ),
}
REPEATS = 5
BATCH_SIZE = {"cpu": 32, "cuda": 128}


class GivenBoxes(PersonDetector):
    """The same boxes in each frame."""

    name, digest = "given boxes", ""

    def __init__(self, boxes: np.ndarray) -> None:
        score = 1 - 0.01 * np.arange(len(boxes), dtype=np.float32)  # mmpose sorts by it
        self._rows = np.concatenate([boxes, score[:, None]], axis=1)

    def boxes(self, frames: np.ndarray) -> list[np.ndarray]:
        """See `PersonDetector`."""
        return [self._rows for _ in frames]

    def for_mmpose(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The same, as mmdet's inferencer answers."""
        from mmengine.structures import InstanceData

        rows = torch.from_numpy(self._rows)
        labels = torch.zeros(len(rows), dtype=torch.int64)
        return {
            "predictions": [
                SimpleNamespace(pred_instances=InstanceData(bboxes=rows[:, :4], scores=rows[:, 4], labels=labels))
            ]
        }


def prepare(path: Path) -> None:
    """Render four held-out demo clips and write their frames (4, 16, 64, 64, 3)."""
    from data_tools.demo.generate import generate_demo_data
    from lisa_video.data.manifest import Manifest
    from lisa_video.data.video_io import read_frames

    with tempfile.TemporaryDirectory() as folder:
        clips = Manifest(generate_demo_data(folder, clips=6, seed=7, val_fraction=0.9, workers=1), "val")
        frames = [read_frames(clips.resolve(clips[i].video), clips[i].in_video(np.arange(16))) for i in range(4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, frames=np.stack(frames))


def compose(clips: np.ndarray, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Frames (F, H, W, 3) with a figure in each tile, and the tiles as boxes (P, 4)."""
    side = setting.figure_px
    frames = np.empty((setting.frames, setting.rows * side, setting.columns * side, 3), np.uint8)
    boxes = []
    for place in range(setting.rows * setting.columns):
        top, left = (side * number for number in divmod(place, setting.columns))
        boxes.append((left, top, left + side, top + side))
        for number, frame in enumerate(frames):
            figure = clips[(place + number // 16) % len(clips), number % 16]
            frame[top : top + side, left : left + side] = cv2.resize(
                figure, (side, side), interpolation=cv2.INTER_CUBIC
            )
    return frames, np.array(boxes, np.float32)


def network(setting: Setting, folder: Path) -> tuple[Path, Path]:
    """Config, and a checkpoint with nothing but weights, which both sides read."""
    import mmpose
    from mmpose.apis import init_model

    if setting.trained:
        config = DEMO / "rtmpose_demo.py"
    else:
        config = Path(mmpose.__file__).parent / ".mim" / "configs" / RTMPOSE_M
    torch.manual_seed(0)
    settings = load_config(config)
    model = init_model(settings, None, device="cpu")
    if setting.trained:
        load_weights(model, DEMO / "rtmpose_demo.pth")
    checkpoint = folder / f"{config.stem}.pth"
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    return config, checkpoint


def compare(setting: Setting, clips: np.ndarray, device: str, folder: Path) -> dict[str, Any]:
    """Frames per second of both, medians over alternating rounds, and how far their joints are apart."""
    from mmpose.apis import MMPoseInferencer

    frames, boxes = compose(clips, setting)
    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    config, checkpoint = network(setting, folder)
    given = GivenBoxes(boxes)
    batch_size = BATCH_SIZE[torch.device(device).type]
    ours = MMPoseDetector.from_settings(
        DetectorSettings(
            kind="mmpose", config=str(config), checkpoint=str(checkpoint), person=PersonSettings(kind="whole_frame"),
            device=device, batch_size=batch_size, flip_test=setting.flip_test,
        )
    )  # fmt: skip
    ours.person = given
    theirs = MMPoseInferencer(str(config), str(checkpoint), device=device, det_model="whole_image").inferencer
    theirs.detector, theirs.det_cat_ids = given.for_mmpose, (0,)
    theirs.model.test_cfg["flip_test"] = setting.flip_test
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.find(frames),
        "mmpose": lambda: list(theirs(bgr, return_datasamples=True)),
    }
    answers = {name: side() for name, side in sides.items()}  # and a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(REPEATS):
        for name in list(sides)[:: 1 if repeat % 2 else -1]:
            started = _now(device)
            sides[name]()
            seconds[name].append(_now(device) - started)
    rate = {name: setting.frames / statistics.median(taken) for name, taken in seconds.items()}
    return {
        **asdict(setting),
        "frame_px": [int(side) for side in frames.shape[2:0:-1]],
        "frames_per_s": {name: round(value, 1) for name, value in rate.items()},
        "seconds": {name: [round(value, 4) for value in taken] for name, taken in seconds.items()},
        "batch_size": batch_size,
        "ratio": round(rate["ours"] / rate["mmpose"], 2),
        **distances(answers["ours"], answers["mmpose"]),
    }


def distances(ours: list[Any], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Pixels between the joints of both; mmpose counts from the centre of the first pixel, ours from its corner."""
    expected = [answer["predictions"][0].pred_instances for answer in theirs]
    apart = np.concatenate(
        [
            np.linalg.norm(people.xy - 0.5 - sample.keypoints, axis=-1).ravel()
            for people, sample in zip(ours, expected, strict=True)
        ]
    )
    return {
        "joints": len(apart),
        "share_within_0.5_px": round(float((apart <= TOLERANCE_PX).mean()), 5),
        "median_px": round(float(np.median(apart)), 4),
        "max_px": round(float(apart.max()), 3),
    }


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()  # what other processes take does not count
    torch.cuda.synchronize()
    return time.perf_counter()


def _hardware(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> int:
    """Measure, print a table, write `results/pose_step_DEVICE.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="write the clips to this file, and stop")
    parser.add_argument("--clips", type=Path, help="file of --prepare")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare)
        return 0
    if arguments.clips is None:
        parser.error("--clips is needed; make the file with --prepare")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    kind = torch.device(arguments.device).type
    if kind == "cpu":
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    prepare_mmpose()
    clips = np.load(arguments.clips)["frames"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for setting in SETTINGS[kind]:
            rows.append(row := compare(setting, clips, arguments.device, Path(folder)))
            rates = row["frames_per_s"]
            print(
                f"{setting.name:32} ours {rates['ours']:8} frames/s  mmpose {rates['mmpose']:8}  ratio {row['ratio']:6}"
                f"  within 0.5 px {row['share_within_0.5_px']:.2%}  largest {row['max_px']} px",
                flush=True,
            )
    result = {
        "hardware": _hardware(arguments.device),
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the process" if kind == "cpu" else "wall seconds, synchronised",
        "versions": {name: version(name) for name in ("torch", "mmpose", "mmengine", "mmcv-lite", "numpy")}
        | {"python": platform.python_version(), "opencv": cv2.__version__},
        "settings": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"pose_step_{kind}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    apart = [row["name"] for row in rows if row["trained"] and row["max_px"] > TOLERANCE_PX]
    if apart:
        print(f"joints differ by more than {TOLERANCE_PX} px: {', '.join(apart)}", file=sys.stderr)
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
