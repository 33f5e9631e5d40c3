"""Measurements of pictures: known answers on drawn pictures, any chunks, files, and text that is burned in."""

import cv2
import numpy as np
import pytest

from data_tools.measures import MAX_SIDE_PX, FrameMeasurer, FrameMeasures, load_measures, save_measures, small_luma
from lisa_video.data.video_io import read_frames, write_video
from lisa_video.errors import UserError

HEIGHT, WIDTH = 120, 160


def measure(frames: np.ndarray, chunk: int = 1000) -> FrameMeasures:
    measurer = FrameMeasurer()
    for start in range(0, len(frames), chunk):
        measurer.update(frames[start : start + chunk])
    return measurer.result()


def even(*levels: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.stack([np.full((*size, 3), level, np.uint8) for level in levels])


def textured(frames: int, step: float = 0.0, seed: int = 0) -> np.ndarray:
    """A picture of soft blotches and hard shapes that moves `step` pixels a frame to the left."""
    random = np.random.default_rng(seed)
    width = WIDTH + 2 + int(step * frames)
    picture = cv2.GaussianBlur(random.integers(0, 256, (HEIGHT, width), np.uint8), (0, 0), 4)
    picture = cv2.normalize(picture, None, 40, 200, cv2.NORM_MINMAX)
    for _ in range(width // 8):
        corner = random.integers(0, (width, HEIGHT))
        cv2.rectangle(
            picture, corner.tolist(), (corner + random.integers(4, 24, 2)).tolist(), int(random.integers(256)), -1
        )
    rows = [cv2.getRectSubPix(picture, (WIDTH, HEIGHT), (WIDTH / 2 + step * i, HEIGHT / 2)) for i in range(frames)]
    return np.repeat(np.stack(rows)[..., None], 3, axis=3)


def with_text(frames: np.ndarray, start: int = 0) -> np.ndarray:
    marked = frames.copy()
    for frame in marked[start:]:
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                frame, "and then she said", (12, 110), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, width, cv2.LINE_AA
            )
    return marked


def test_brightness_and_change_of_even_pictures():
    measures = measure(even(0, 100, 130, 130))
    np.testing.assert_array_equal(measures.luma, [0, 100, 130, 130])
    np.testing.assert_array_equal(measures.luma_std, 0)
    np.testing.assert_array_equal(measures.change, [np.nan, 100, 30, 0])
    assert np.isnan(measures.sharpness).all()  # nothing in an even picture can be sharp
    assert not measures.bars.any()
    assert measures.luma.dtype == measures.bars.dtype == np.float32


def test_brightness_weighs_the_colours_as_bt601():
    green = np.zeros((1, 8, 8, 3), np.uint8)
    green[..., 1] = 200
    assert measure(green).luma == pytest.approx(0.587 * 200, abs=0.5)


def test_pictures_are_shrunk_to_the_longer_side_and_never_enlarged():
    assert small_luma(np.zeros((1080, 1920, 3), np.uint8)).shape == (90, MAX_SIDE_PX)
    assert small_luma(np.zeros((40, 30, 3), np.uint8)).shape == (40, 30)
    assert small_luma(np.zeros((2, 4000, 3), np.uint8)).shape == (1, MAX_SIDE_PX)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_where_chunks_begin_makes_no_difference(chunk):
    frames = with_text(textured(20, step=2), start=10)
    whole, parts = measure(frames), measure(frames, chunk)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(values, getattr(parts, name), err_msg=name)
        assert len(values) == whole.num_frames == 20


def test_no_frame_has_no_measures():
    with pytest.raises(ValueError, match="no frame"):
        FrameMeasurer().result()


def test_blur_lowers_the_sharpness_and_contrast_does_not():
    frames = textured(1)
    sharp = measure(frames).sharpness[0]
    pale = measure((frames // 2 + 60).astype(np.uint8)).sharpness[0]
    blurred = [measure(cv2.GaussianBlur(frames[0], (0, 0), sigma)[None]).sharpness[0] for sigma in (1, 2, 4)]
    assert sharp > 0.45 and pale == pytest.approx(sharp, abs=0.05)
    assert sharp > blurred[0] > blurred[1] > blurred[2] and blurred[2] < 0.3


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize(
    ("edges", "expected"), [((12, 12, 0, 0), (0.1, 0.1, 0, 0)), ((0, 0, 16, 32), (0, 0, 0.1, 0.2))]
)
def test_bars_are_found_with_their_widths(level, edges, expected):
    frames = textured(3, step=1)
    top, bottom, left, right = edges
    frames[:, :top] = frames[:, HEIGHT - bottom :] = level
    frames[:, :, :left] = frames[:, :, WIDTH - right :] = level
    np.testing.assert_allclose(measure(frames).bars, [expected] * 3, atol=0.011)


def test_a_person_before_a_black_wall_stands_in_no_bars():
    frames = even(0, 0)
    cv2.ellipse(frames[0], (80, 70), (15, 40), 0, 0, 360, (200, 180, 160), -1)
    assert not measure(frames).bars.any()


@pytest.mark.parametrize("crf", [14, 28])
def test_a_subtitle_that_appears_is_seen_when_it_appears(crf, tmp_path):
    write_video(tmp_path / "clip.mp4", with_text(textured(30), start=15), 25, crf=crf)
    sudden = measure(read_frames(tmp_path / "clip.mp4", np.arange(30))).sudden_text
    assert np.nanargmax(sudden) == 15 and sudden[15] > 0.5
    assert np.nanmax(np.delete(sudden, 15)) < 0.1
    assert np.isnan(sudden[:6]).all() and np.isnan(sudden[-6:]).all() and not np.isnan(sudden[6:-6]).any()


def test_a_subtitle_under_a_moving_picture_is_seen_all_the_time():
    fixed = measure(with_text(textured(24, step=3))).fixed_text
    assert np.isnan(fixed[:8]).all() and fixed[8:].min() > 0.4


@pytest.mark.parametrize("step", [0, 3])
def test_pictures_without_text_show_no_evidence_of_it(step):
    measures = measure(textured(24, step=step, seed=3))
    assert np.nanmax(measures.fixed_text) < 0.25 and np.nanmax(measures.sudden_text) < 0.1


def test_what_cannot_be_known_is_not_claimed():
    # A still logo under a still camera is a part of the background.
    assert np.nanmax(measure(with_text(textured(24))).fixed_text) < 0.1


def test_a_cut_is_no_text():
    frames = np.concatenate([textured(12, seed=1), textured(12, seed=2)])
    measures = measure(frames)
    assert np.nanmax(measures.sudden_text) < 0.1 and np.nanargmax(measures.change) == 12


def test_files_return_what_was_saved(tmp_path):
    measures = measure(textured(20, step=1))
    path = tmp_path / "clip.measures.npz"
    save_measures(path, measures)
    first = path.read_bytes()
    loaded = load_measures(path)
    for name, values in vars(measures).items():
        np.testing.assert_array_equal(values, getattr(loaded, name))
    save_measures(path, loaded)
    assert path.read_bytes() == first and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_files_that_cannot_be_read_are_named(tmp_path, content):
    path = tmp_path / "clip.measures.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read measures"):
        load_measures(path)


def test_files_of_another_version_are_refused(tmp_path):
    path = tmp_path / "clip.measures.npz"
    np.savez(path, version=np.int64(99))
    with pytest.raises(UserError, match="version 99"):
        load_measures(path)
