"""MediaPipe (BlazePose) as a detector: works at once, without files to fetch, a network connection or a GPU.

Bazarevsky et al., "BlazePose: on-device real-time body pose tracking", 2020. Each frame is taken by itself.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from lisa_video.config.detector import DetectorSettings
from lisa_video.errors import UserError
from lisa_video.pose.detector import People, PoseDetector
from lisa_video.pose.detectors.boxes import PersonDetector
from lisa_video.pose.detectors.mediapipe_graphs import (
    BODY_MODELS,
    HAND_AND_FACE_MODELS,
    import_mediapipe,
    models_digest,
)
from lisa_video.pose.detectors.mediapipe_people import PeopleSearch
from lisa_video.pose.detectors.persons import load_person_detector


class MediaPipeDetector(PoseDetector):
    """MediaPipe's model "full"; layout `coco17`, or `coco_wholebody133` with hands and face where they are seen.

    A joint's score is MediaPipe's `visibility`, the probability that it is inside the frame and not hidden. It is high
    for most joints that are hidden behind the person's own body. Outside the frame it is 0.

    Args:
        search: finds people and joints.
        name: of how people are found, for protocols.
        person: finds the people in the place of `search`, which then finds their joints.
    """

    def __init__(self, search: PeopleSearch, name: str, person: PersonDetector | None = None) -> None:
        self._search, self._found_by, self._person = search, name, person

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MediaPipeDetector:
        """See `DetectorSettings`.

        Raises:
            UserError: MediaPipe is not installed, or was asked to run on a GPU.
        """
        if settings.device != "cpu":
            raise UserError(
                f"MediaPipe runs on the CPU only, not on {settings.device!r}",
                where="detector.device",
                remedy="set it to cpu, or use mmpose or rtmpose on a GPU",
            )
        search = _search(settings, wholebody=settings.wholebody)
        if settings.person.kind == "mediapipe":
            return cls(search, _search_name(settings))
        person = load_person_detector(settings)
        return cls(search, person.name, person)

    @property
    def name(self) -> str:
        """See `PoseDetector`."""
        return f"MediaPipe {import_mediapipe().__version__} pose full, {self.skeleton}, people by {self._found_by}"

    @property
    def digest(self) -> str:
        """See `PoseDetector`; of the model files of MediaPipe that are used."""
        return models_digest(BODY_MODELS + (HAND_AND_FACE_MODELS if self.skeleton != "coco17" else ()))

    @property
    def skeleton(self) -> str:
        """See `PoseDetector`."""
        return self._search.skeleton.name

    def find(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[People]:
        """See `PoseDetector`."""
        if self._person is None:
            return [self._search.people(frame) for frame in frames]
        boxes = self._person.boxes(frames)
        return [self._search.people_within(frame, found) for frame, found in zip(frames, boxes, strict=True)]


class MediaPipePersons(PersonDetector):
    """MediaPipe's search for people, as boxes for other pose detectors; on the CPU, wherever those compute.

    Args:
        search: finds people.
        name: what it is called in protocols.
    """

    def __init__(self, search: PeopleSearch, name: str) -> None:
        self._search, self._name = search, name

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MediaPipePersons:
        """See `DetectorSettings.person`.

        Raises:
            UserError: MediaPipe is not installed.
        """
        return cls(_search(settings, wholebody=False), _search_name(settings))

    @property
    def name(self) -> str:
        """See `PersonDetector`."""
        return self._name

    @property
    def digest(self) -> str:
        """See `PersonDetector`."""
        return models_digest(BODY_MODELS)

    def boxes(self, frames: UInt8[np.ndarray, "F H W 3"]) -> list[np.ndarray]:
        """See `PersonDetector`."""
        return [self._search.people(frame).box for frame in frames]


def _search(settings: DetectorSettings, *, wholebody: bool) -> PeopleSearch:
    person = settings.person
    return PeopleSearch(min_score=person.min_score, smallest=person.smallest, wholebody=wholebody)


def _search_name(settings: DetectorSettings) -> str:
    person = settings.person
    return f"MediaPipe search from score {person.min_score:g} and {person.smallest:g} of the shorter side"
