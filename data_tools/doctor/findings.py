"""What the doctor finds: problems, and what it measured on each clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

HEAT_CELLS = 32
"""The heat map of joints has so many cells across the frame, and as many down it."""


class Check(NamedTuple):
    """A kind of problem.

    Attributes:
        title: what is wrong, in the plural.
        remedy: what to do about it.
    """

    title: str
    remedy: str


CHECKS = {
    "manifest": Check("Lines of the manifest that cannot be read", "build the manifest again with this release"),
    "clip_id": Check("Clips of the same name", "give every clip a name of its own"),
    "repeated": Check("Clips that show the same frames", "remove all but one of them"),
    "leak": Check(
        "Sources in both splits", "put all clips of a source into one split, or held-out scores mean nothing"
    ),
    "missing": Check("Videos that are not there", "copy the video back, or leave its clips out of the manifest"),
    "decode": Check("Clips that cannot be decoded to the end", "replace the video, or leave the clip out"),
    "timeout": Check("Clips that took too long", "look at the video; raise --timeout if it is only large"),
    "crash": Check("Clips that ended the process that read them", "replace the video: it is damaged in a rare way"),
    "changed": Check("Videos whose bytes have changed", "bring back the old file, or build the data set again"),
    "size": Check(
        "Frames of another size than the manifest says", "extract poses and manifest again: joints are misplaced"
    ),
    "fps": Check("Frame rates other than the manifest says", "correct the rate: it is one of the model's inputs"),
    "keypoints": Check("Keypoint files that cannot be read", "extract the poses of these clips again"),
    "count": Check("Keypoints for another number of frames", "extract the poses of these clips again"),
    "scores": Check("Keypoints with impossible numbers", "extract the poses of these clips again"),
    "outside": Check("People outside of the frame", "extract the poses again: they may be of another size or video"),
    "nobody": Check("Clips without any visible person", "leave them out: there is no pose to learn from"),
}
"""Name -> check, in the order of the report."""


class Problem(NamedTuple):
    """Something that has to be mended.

    Attributes:
        check: key of `CHECKS`.
        what: the facts.
        clip_id: of the clip concerned, if it is one.
        where: file or line concerned.
    """

    check: str
    what: str
    clip_id: str | None = None
    where: str | None = None


@dataclass(frozen=True)
class ClipFindings:
    """What was found on one clip.

    Attributes:
        clip_id: of the clip.
        problems: of this clip.
        values: rule -> measured number; empty if the clip could not be judged.
        broken: rule -> text, under the limits at hand.
        reference_track: track id of the reference person.
        luma: mean brightness, 0 to 255.
        decoded: frames that came out of the decoder.
        joints: where in the frame the visible joints of all people are, counts.
    """

    clip_id: str
    problems: tuple[Problem, ...] = ()
    values: dict[str, float | None] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    reference_track: int | None = None
    luma: float | None = None
    decoded: int = 0
    joints: Int[np.ndarray, "cells cells"] | None = None
