"""Settings of `lisa-video data`: one section a step. A change makes the steps that depend on it run again, no other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lisa_video.config.detector import DetectorSettings
from lisa_video.config.schema import Positive, Probability, Section

Seconds = Annotated[float, Field(gt=0)]


class SourceSettings(Section):
    """Which files of the videos folder are looked at."""

    ignore: tuple[str, ...] = (".*",)  # shell patterns of names of files and folders; every other file is tried


class ProbeSettings(Section):
    """What counts as a video that can be used at all."""

    max_pixels: Positive = 4096 * 2304  # of a frame; larger videos are quarantined before anything is decoded
    min_fps: Annotated[float, Field(gt=0)] = 5.0
    max_fps: Annotated[float, Field(gt=0)] = 250.0
    timeout_s: Seconds = 60.0  # for one video


class ShotSettings(Section):
    """Where the camera cuts (PySceneDetect's adaptive detector)."""

    adaptive_threshold: Annotated[float, Field(gt=0)] = 3.0
    min_content: Annotated[float, Field(ge=0)] = 15.0
    min_shot_s: Seconds = 0.5
    width: Positive = 256  # pixels; frames are shrunk to it before they are compared
    timeout_s: Seconds = 1800.0  # for one video


class ClipSettings(Section):
    """How shots become clips."""

    target_fps: Annotated[float, Field(gt=0)] | None = None  # every n-th frame is taken to come near it; null: all
    min_frames: Positive = 14  # taken frames; shorter pieces are dropped
    max_frames: Positive = 64  # taken frames; longer shots give several clips
    trim_s: Annotated[float, Field(ge=0)] = 0.0  # cut off at both ends of a shot, where dissolves hide


class PoseSettings(Section):
    """How people and their poses are found."""

    detector: DetectorSettings = DetectorSettings()
    max_side: Positive = 1280  # pixels; larger frames are shrunk before detection, the keypoints scaled back
    timeout_s: Seconds = 1800.0  # for one video


class Limits(Section):
    """What a rule's number has to lie between, limits included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def check_limits(self) -> Limits:
        """At least one limit, in order."""
        if self.min is None and self.max is None:
            raise ValueError("name a min, a max or both; to turn the rule off write null")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self


class FilterSettings(Section):
    """Limits of the rules in `data_tools/rules.py`, which say what each number means; null turns a rule off.

    In the order of the rules. A "person size" is the diagonal of the box of the visible body joints.
    """

    people: Limits | None = Limits(min=1, max=1)  # in view at once; bystanders below 0.4 of the size do not count
    seen: Limits | None = Limits(min=0.9)  # share of frames
    track_breaks: Limits | None = Limits(max=1)  # count
    person_jump: Limits | None = Limits(max=0.5)  # person sizes between two frames
    person_size: Limits | None = Limits(min=0.3)  # share of the frame's shorter side
    visible_joints: Limits | None = Limits(min=0.5)  # share of the 17 body joints
    visible_torso: Limits | None = Limits(min=0.5)  # share of frames
    body_score: Limits | None = Limits(min=0.5)  # mean score of the drawn joints
    hand_score: Limits | None = None  # mean score, whole-body layouts only
    face_score: Limits | None = None  # likewise
    jitter: Limits | None = Limits(max=0.02)  # person sizes, standard deviation per axis
    motion: Limits | None = Limits(min=0.05, max=4.0)  # person sizes per second
    black_frames: Limits | None = Limits(max=0.05)  # share of frames
    frozen_frames: Limits | None = Limits(max=0.25)  # share of frames
    sharpness: Limits | None = Limits(min=0.4)  # 0 blurred to 1 sharp
    borders: Limits | None = Limits(max=0.05)  # share of height or width
    fixed_text: Limits | None = Limits(max=0.4)  # evidence, 0 to 1
    sudden_text: Limits | None = Limits(max=0.25)  # evidence, 0 to 1
    cut: Limits | None = Limits(max=3.0)  # times the neighbouring changes
    short_side: Limits | None = Limits(min=64)  # pixels; raise it to about the training size
    aspect: Limits | None = Limits(max=2.5)  # longer over shorter side
    fps_deviation: Limits | None = Limits(max=0.1)  # relative


class ManifestSettings(Section):
    """How clips become a data set."""

    val_fraction: Probability = 0.05  # of source videos; a source is never in both splits
    seed: Annotated[int, Field(ge=0)] = 0  # of the split: a hash of (seed, digest), so more videos move none


class EngineSettings(Section):
    """Who does the work."""

    kind: Literal["local", "ray"] = "local"
    workers: Positive | None = None  # processes; null: one a core, or one a GPU for a detector on `cuda`
    memory_mib: Positive | None = None  # address space of a worker; null: no limit. CUDA reserves far more than it uses
    address: str | None = None  # ray: address of a cluster, such as "auto"; null: a Ray on this machine, for this job


class BuildSettings(Section):
    """All of it."""

    sources: SourceSettings = SourceSettings()
    probe: ProbeSettings = ProbeSettings()
    shots: ShotSettings = ShotSettings()
    clips: ClipSettings = ClipSettings()
    poses: PoseSettings = PoseSettings()
    filters: FilterSettings = FilterSettings()
    manifest: ManifestSettings = ManifestSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def check_across_sections(self) -> BuildSettings:
        """Rules that concern more than one key."""
        if self.clips.min_frames > self.clips.max_frames:
            raise ValueError("clips.min_frames must not be above clips.max_frames")
        return self
