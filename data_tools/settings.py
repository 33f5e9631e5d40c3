"""Settings of `lisa-video data`: one section a step. A change makes the steps that depend on it run again, no other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lisa_video.config.detector import DetectorSettings
from lisa_video.config.schema import Positive, Probability, Section

Seconds = Annotated[float, Field(gt=0)]


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


class FilterSettings(Section):
    """Thresholds of the rules, all in `data_tools/rules.py`; null turns a rule off."""

    preset: str | None = None  # placeholder, written by the filter room


class ManifestSettings(Section):
    """How clips become a data set."""

    val_fraction: Probability = 0.05  # of source videos; a source is never in both splits
    seed: Annotated[int, Field(ge=0)] = 0  # of the split: a hash of (seed, digest), so more videos move none


class EngineSettings(Section):
    """Who does the work."""

    kind: Literal["local", "ray"] = "local"
    workers: Positive | None = None  # processes; null: one a core, or one a GPU for a detector on `cuda`
    memory_mib: Positive | None = None  # address space of a worker; null: no limit
    address: str | None = None  # ray: cluster address; null: a local Ray


class BuildSettings(Section):
    """All of it."""

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
