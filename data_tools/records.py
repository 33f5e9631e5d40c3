"""What the steps of a data build hand to each other, a file each in the folder of a video's content digest.

Frame numbers count the frames that a decoder shows, from 0, in the order in which they are shown. A span
[start, end) holds `start` and not `end`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A result of a step: strict, frozen, JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Probe(Record):
    """What a video file holds, measured without decoding more than its first frame.

    Attributes:
        digest: `sha256:...` of the file's bytes.
        size_bytes: of the file.
        codec: name of the video codec, such as "h264".
        width: of the frames as decoded, rotation applied, pixels.
        height: likewise.
        rotation: degrees clockwise by which the decoder turns the stored picture: 0, 90, 180 or 270.
        num_frames: frames that a decoder shows, counted from the packets, not what the container claims.
        fps: average frames per second, from the timestamps.
        seconds: duration by the timestamps.
        variable_rate: whether the distance of frames varies by more than half.
    """

    digest: str
    size_bytes: int
    codec: str
    width: int
    height: int
    rotation: int
    num_frames: int
    fps: float
    seconds: float
    variable_rate: bool


class Span(Record):
    """Frames [start, end) of a video."""

    start: Count
    end: Count


class Shots(Record):
    """Where the camera cuts, and where frames are damaged; every frame was decoded once.

    Attributes:
        shots: spans without a cut and without damage, in order.
        damaged: spans that a decoder refuses or marks as corrupt, in order; no shot overlaps them.
        decoded_frames: frames that could be decoded.
    """

    shots: tuple[Span, ...]
    damaged: tuple[Span, ...]
    decoded_frames: int


class ClipPlan(Record):
    """Frames start, start + stride, ... of a video, that become one clip.

    Attributes:
        clip_id: `<first 16 digits of the digest>-<start, 7 digits>`.
        start: first frame.
        num_frames: frames taken.
        stride: distance of the frames taken.
        fps: frames per second of the video (not of the frames taken) from the first frame taken to the last, from its
            timestamps.
    """

    clip_id: str
    start: Count
    num_frames: Annotated[int, Field(ge=1)]
    stride: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)]


class Clips(Record):
    """The clips of a video, and the frames that went into none.

    Attributes:
        clips: in order, not overlapping.
        too_short: frames of shots, or rests of shots, that are shorter than a clip.
    """

    clips: tuple[ClipPlan, ...]
    too_short: Count


class ClipPoses(Record):
    """One clip after detection.

    Attributes:
        clip_id: of the plan.
        keypoints: file name in the video's folder, `num_frames` frames, pixels of the full-size frames.
        measures: file name in the video's folder: per-frame measurements, see `data_tools/measures.py`.
    """

    clip_id: str
    keypoints: str
    measures: str


class Poses(Record):
    """The clips of a video after detection.

    Attributes:
        detector: name of the detector.
        detector_digest: of its weights.
        clips: those that could be decoded.
        failed: (clip_id, reason) of those that could not.
    """

    detector: str
    detector_digest: str
    clips: tuple[ClipPoses, ...]
    failed: tuple[tuple[str, str], ...] = ()


class Verdict(Record):
    """What the rules say of one clip.

    Attributes:
        clip_id: of the plan.
        broken: rule -> what was measured against what threshold, for every rule that the clip breaks; empty: kept.
        values: rule -> the measured number, for distributions; null where it could not be measured.
        reference_track: track id of the reference person; null: nobody was found.
    """

    clip_id: str
    broken: dict[str, str]
    values: dict[str, float | None]
    reference_track: int | None


class Verdicts(Record):
    """What the rules say of the clips of a video."""

    verdicts: tuple[Verdict, ...]
