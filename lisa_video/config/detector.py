"""Which pose detector is used, and how: the same settings for data tools, previews and evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lisa_video.config.schema import Positive, Probability, Section


class PersonSettings(Section):
    """How people are found before their joints are."""

    kind: Literal["whole_frame", "mediapipe", "mmdet", "yolox"] = "mediapipe"  # whole_frame: one person, no search
    config: str | None = None  # mmdet: config file
    checkpoint: str | None = None  # mmdet: .pth; yolox: .onnx of rtmlib's YOLOX
    min_score: Probability = 0.5  # boxes below are dropped
    smallest: Annotated[float, Field(ge=0.05, le=1)] = 0.3  # mediapipe: people looked for, over the shorter side


class SmoothingSettings(Section):
    """One-euro filter (Casiez et al. 2012) over each joint's path."""

    min_cutoff_hz: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.3  # per (body height / s): faster motion, less smoothing
    derivative_cutoff_hz: Annotated[float, Field(gt=0)] = 1.0


class DetectorSettings(Section):
    """A pose detector."""

    kind: Literal["mediapipe", "mmpose", "rtmpose", "keypoint_net"] = "mediapipe"
    config: str | None = None  # mmpose: config file, or its name within mmpose's own `.mim/configs`
    checkpoint: str | None = None  # mmpose: .pth; rtmpose: .onnx; keypoint_net: folder (null: the embedded one)
    person: PersonSettings = PersonSettings()
    max_people: Positive = 8  # the largest ones are kept
    device: str = "cpu"  # cpu, cuda or cuda:N; a GPU that cannot be used is an error, never the CPU instead
    wholebody: bool = False  # mediapipe: feet, hands and face too; others: as their network was trained
    flip_test: bool = False  # mmpose: average with the mirrored picture; a little more exact, twice the time
    score_scale: Annotated[float, Field(gt=0)] = 1.0  # rtmpose: divides the scores; 10 for RTMW, whose peaks reach 10
    batch_size: Positive = 32  # person crops, or frames, that go through the network at once
    smoothing: SmoothingSettings | None = None
