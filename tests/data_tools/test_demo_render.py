"""The figure, the camera and the renderer: geometry, visibility and that the picture shows what the keypoints say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_tools.demo.background import draw_background
from data_tools.demo.body import Body, PosedBody
from data_tools.demo.camera import Camera, following_camera, look_at
from data_tools.demo.look import LOOKS, make_look
from data_tools.demo.motion import Motion, heading, motion_library
from data_tools.demo.parts import Part
from data_tools.demo.render import HIDDEN, IN_SIGHT, OUTSIDE, render_clip
from lisa_video.pose.skeleton import COCO17

SIZE = 64
JOINT = {name: index for index, name in enumerate(COCO17.joints)}


def _arms_down(frames: int = 1) -> Motion:
    """Standing at the origin, facing +z, arms a little away from the body."""
    rotations = np.zeros((frames, 22, 3))
    rotations[:, 16, 2], rotations[:, 17, 2] = -1.1, 1.1
    return Motion(rotations, np.zeros((frames, 3)), 0.95)


def _standing(shape: float = 0.0) -> PosedBody:
    return Body(np.full(10, shape)).pose(_arms_down())


def _camera_from(azimuth: float, frames: int = 1, distance: float = 4.0) -> Camera:
    """A level camera at chest height looking at the origin; azimuth 0 sees the front of the figure."""
    place = np.array([np.sin(azimuth) * distance, 0.9, np.cos(azimuth) * distance])
    position = np.repeat(place[None], frames, axis=0)
    target = np.repeat(np.array([[0.0, 0.9, 0.0]]), frames, axis=0)
    return Camera(position, look_at(position, target), np.full(frames, 1.6))


@pytest.mark.parametrize("shape", [-1.5, 0.0, 1.5])
def test_body_stands_on_the_floor_and_is_put_together_right(shape):
    body = _standing(shape)
    points = {name: body.keypoints[0, index] for name, index in JOINT.items()}
    assert body.vertices[..., 1].min() == pytest.approx(0, abs=1e-6)
    assert 1.3 < body.height < 2.2
    assert points["nose"][2] > points["left_eye"][2] > points["left_ear"][2], "the nose is the front"
    for pair in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert points[f"left_{pair}"][0] > points[f"right_{pair}"][0], "left is +x for one who faces +z"
    heights = [points[f"left_{name}"][1] for name in ("eye", "shoulder", "elbow", "hip", "knee", "ankle")]
    assert heights == sorted(heights, reverse=True)


def test_face_points_lie_on_the_head_and_all_parts_exist():
    body = _standing()
    surface = body.vertices[0][np.unique(body.faces[np.isin(body.part, [Part.SKIN, Part.HAIR])])]
    for index in range(5):
        distance = np.linalg.norm(surface - body.keypoints[0, index], axis=1).min()
        assert distance < 0.035, COCO17.joints[index]
    assert set(np.unique(body.part)) == set(Part)


def test_faces_are_turned_outwards():
    body = _standing()
    corners = body.vertices[0].astype(np.float64)[body.faces]
    # The volume of closed surfaces whose triangles all point outwards is positive; that of the eyes is nearly zero.
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.04 < volume < 0.2


def test_limbs_keep_their_length_while_moving():
    body = Body(np.zeros(10)).pose(motion_library()["dance_b"].at(np.arange(8) / 8))
    for start, end in (("left_shoulder", "left_elbow"), ("right_knee", "right_ankle"), ("left_eye", "nose")):
        length = np.linalg.norm(body.keypoints[:, JOINT[start]] - body.keypoints[:, JOINT[end]], axis=1)
        np.testing.assert_allclose(length, length[0], rtol=1e-4)


def test_mirrored_motion_gives_the_mirrored_figure():
    motion = motion_library()["punch"].at(np.linspace(0, 2, 6))
    body = Body(np.zeros(10))
    plain, mirrored = body.pose(motion).keypoints, body.pose(motion.mirrored()).keypoints
    # The skeleton of the package is lopsided by up to 3 cm, hence the tolerance.
    np.testing.assert_allclose(mirrored[:, COCO17.flip_index] * [-1, 1, 1], plain, atol=0.08)


def test_projection_of_a_point_worked_out_by_hand():
    camera = Camera(np.array([[0.0, 1.0, 5.0]]), look_at(np.array([[0.0, 1.0, 5.0]]), np.array([[0.0, 1.0, 0.0]])),
                    np.array([2.0]))  # fmt: skip
    xy, depth = camera.project(np.array([[[0.5, 2.0, 1.0], [0.0, 1.0, 0.0]]]), 64)
    np.testing.assert_allclose(depth, [[4.0, 5.0]])
    # x: 64 * (0.5 + 2 * 0.5 / 4), y: 64 * (0.5 - 2 * 1 / 4)
    np.testing.assert_allclose(xy, [[[48.0, 0.0], [32.0, 32.0]]], atol=1e-9)


def test_rays_and_projection_agree():
    camera = _camera_from(0.7)
    rays = camera.rays(8)
    xy, _ = camera.project(camera.position[:, None] + 3 * rays.reshape(1, -1, 3), 8)
    centres = np.stack(np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5), axis=-1).reshape(1, -1, 2)
    np.testing.assert_allclose(xy, centres, atol=1e-9)


@pytest.mark.parametrize(
    ("azimuth", "seen", "hidden"),
    [
        (0.0, ["nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder", "left_hip", "right_knee",
               "left_wrist", "right_wrist", "left_ankle"], []),
        (np.pi, ["left_shoulder", "right_hip", "left_knee", "left_elbow"], ["nose", "left_eye", "right_eye"]),
        (np.pi / 2, ["left_ear", "left_shoulder", "left_knee", "left_wrist"], ["right_ear", "right_eye",
                                                                              "right_shoulder", "right_hip"]),
        (-np.pi / 2, ["right_ear", "right_shoulder"], ["left_ear", "left_eye", "left_shoulder", "left_hip"]),
    ],
)  # fmt: skip
def test_visibility_depends_on_the_side(azimuth, seen, hidden):
    _, keypoints = render_clip(_standing(), make_look("train", 3), _camera_from(azimuth), SIZE)
    score = dict(zip(COCO17.joints, keypoints.score[0, 0], strict=True))
    assert {name: score[name] for name in seen} == dict.fromkeys(seen, IN_SIGHT)
    assert {name: score[name] for name in hidden} == dict.fromkeys(hidden, np.float32(HIDDEN))


def test_joints_outside_the_frame_score_zero_and_stay_finite():
    close = _camera_from(0.0, distance=1.2)
    _, keypoints = render_clip(_standing(), make_look("train", 3), close, SIZE)
    xy, score = keypoints.xy[0, 0], keypoints.score[0, 0]
    outside = ((xy < 0) | (xy >= SIZE)).any(axis=1)
    assert outside[JOINT["left_ankle"]] and not outside[JOINT["left_hip"]]
    np.testing.assert_array_equal(score == OUTSIDE, outside)
    assert np.isfinite(keypoints.xy).all()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_picture_shows_the_figure_at_the_keypoints(size):
    body, camera = Body(np.zeros(10)).pose(motion_library()["walk"].at(np.arange(3) / 3)), _camera_from(0.3, 3)
    camera = replace(camera, position=camera.position + body.keypoints.mean(axis=(0, 1)) * [1, 0, 1])
    look = make_look("train", 5)
    magenta = replace(look, colors=np.full_like(look.colors, (255, 0, 255)), ambient=1.0)
    frames, keypoints = render_clip(body, magenta, camera, size)
    assert frames.shape == (3, size, size, 3) and frames.dtype == np.uint8
    figure = (np.abs(frames.astype(int) - (255, 0, 255)) < 60).all(axis=3)
    assert 0.03 < figure.mean() < 0.4
    row, column = keypoints.xy[:, 0, 5:, 1].astype(int), keypoints.xy[:, 0, 5:, 0].astype(int)
    on_figure = figure[np.arange(3)[:, None], row, column]
    assert on_figure.mean() > (0.8 if size == 32 else 0.95)  # an ankle is half a pixel wide at 32 pixels


def test_figure_has_the_colours_of_its_look():
    look = make_look("train", 5)
    colors = np.zeros_like(look.colors)
    colors[[Part.SHIRT, Part.SHIRT_FRONT]] = (250, 0, 0)
    colors[[Part.HIPS, Part.THIGH, Part.LOWER_THIGH]] = (0, 0, 250)
    frames, keypoints = render_clip(_standing(), replace(look, colors=colors, ambient=1.0), _camera_from(0.0), SIZE)
    x, y = keypoints.xy[0, 0].T
    chest = int(y[5:7].mean() * 0.6 + y[11:13].mean() * 0.4), int(x[5:7].mean())
    knee = int(y[JOINT["left_knee"]] - 4), int(x[JOINT["left_knee"]])
    assert frames[0][chest].argmax() == 0 and frames[0][knee].argmax() == 2


def test_near_parts_are_painted_over_far_ones():
    colors = np.zeros((len(Part), 3), np.float32)
    colors[Part.HAND], colors[[Part.HIPS, Part.THIGH]] = (250, 0, 0), (0, 0, 250)
    look = replace(make_look("train", 5), colors=colors, ambient=1.0)
    motion = _arms_down()
    motion.rotations[:, 17, 2] = -1.2  # the right arm is raised, or its hand would be behind the left one
    frames, keypoints = render_clip(Body(np.zeros(10)).pose(motion), look, _camera_from(np.pi / 2), SIZE)
    x, y = keypoints.xy[0, 0, JOINT["left_wrist"]]
    assert frames[0, int(y) + 2, int(x)].argmax() == 0, "the near hand hides the hip"
    frames, _ = render_clip(Body(np.zeros(10)).pose(motion), look, _camera_from(-np.pi / 2), SIZE)
    assert frames[0, int(y) + 2, SIZE - 1 - int(x)].argmax() == 2, "the hip hides the far hand"


def _mirrored_scene(body: PosedBody, camera: Camera) -> tuple[PosedBody, Camera]:
    """Body and camera reflected at x = 0; the picture of it must be the mirrored picture."""
    flip = np.array([-1.0, 1.0, 1.0])
    mirrored_body = PosedBody(
        (body.vertices * flip).astype(np.float32), body.faces[:, ::-1], body.part, body.hulls,
        (body.keypoints * flip)[:, COCO17.flip_index], body.height,
    )  # fmt: skip
    axes = camera.axes * flip
    axes[:, 0] *= -1
    return mirrored_body, Camera(camera.position * flip, axes, camera.focal)


def test_mirrored_scene_gives_the_mirrored_picture_keypoints_and_scores():
    body = Body(np.zeros(10)).pose(motion_library()["kick"].at(np.linspace(0.2, 1.2, 5)))
    facing = float(heading(motion_library()["kick"].at(np.array([0.7])).rotations[:, 0])[0])
    camera = following_camera(body, facing, np.random.default_rng(0))
    look = make_look("val", 1)
    look = replace(look, colors=np.full_like(look.colors, (255, 0, 255)), ambient=1.0)
    frames, plain = render_clip(body, look, camera, SIZE)
    mirrored_body, mirrored_camera = _mirrored_scene(body, camera)
    mirrored_frames, mirrored = render_clip(mirrored_body, look, mirrored_camera, SIZE)
    xy = mirrored.xy[:, :, COCO17.flip_index]
    xy[..., 0] = SIZE - xy[..., 0]
    np.testing.assert_allclose(xy, plain.xy, atol=1e-3)
    np.testing.assert_array_equal(mirrored.score[:, :, COCO17.flip_index], plain.score)
    centres = []
    for picture in (frames, mirrored_frames):
        figure = (np.abs(picture.astype(int) - (255, 0, 255)) < 90).all(axis=3)
        centres.append(((np.arange(SIZE) + 0.5) * figure.sum(axis=1)).sum(axis=1) / figure.sum(axis=(1, 2)))
    # A slip of half a pixel between drawing and keypoints would show up here as a third of a pixel or more.
    assert abs(np.mean(centres[0] + centres[1] - SIZE)) < 0.1


def test_following_camera_keeps_most_figures_whole_and_large():
    heights, whole = [], []
    for seed in range(30):
        motion = motion_library()["cmu_park_b"].at(seed / 5 + np.arange(6) / 5)
        body = Body(np.zeros(10)).pose(motion)
        camera = following_camera(body, 0.0, np.random.default_rng(seed))
        xy, depth = camera.project(body.vertices.astype(np.float64), 1.0)
        assert (depth > 0.5).all() and (camera.position[:, 1] > 0).all()
        heights.append(np.ptp(xy[..., 1], axis=1).mean())
        whole.append(((xy > 0) & (xy < 1)).all(axis=(1, 2)).mean())
    assert np.mean(whole) > 0.9
    assert 0.6 < np.mean(heights) < 0.9


def test_camera_zooms_out_for_a_figure_that_would_not_fit():
    arms_up = _arms_down()
    arms_up.rotations[:, 16, 2], arms_up.rotations[:, 17, 2] = 1.4, -1.4
    body = Body(np.zeros(10)).pose(arms_up)
    reach = []
    for seed in range(40):
        camera = following_camera(body, 0.0, np.random.default_rng(seed))
        xy, _ = camera.project(body.vertices.astype(np.float64), 1.0)
        reach.append(np.abs(xy - 0.5).max())
    # A few cameras are left close on purpose.
    assert np.mean(np.array(reach) < 0.51) > 0.8 and max(reach) > 0.52


def test_background_is_fixed_in_the_world_and_has_floor_below_wall():
    look, centre = make_look("train", 9), np.zeros(3)
    look = replace(look, wall=np.array([[200.0, 0, 0]] * 2), floor=np.array([[0.0, 0, 200]] * 2))
    still = _camera_from(0.4, frames=2)
    picture, floor = draw_background(look, still, centre, 48)
    np.testing.assert_array_equal(picture[0], picture[1])
    assert floor[0, -1].min() == 1 and floor[0, 0].max() == 0
    assert (picture[0, -1].argmax(axis=1) == 2).all() and (picture[0, 0].argmax(axis=1) == 0).all()
    assert (np.diff(floor[0], axis=0) >= 0).all()
    turned = Camera(still.position, look_at(still.position, np.array([[0.0, 0.9, 0.0], [0.4, 0.9, 0.0]])), still.focal)
    moved, _ = draw_background(look, turned, centre, 48)
    np.testing.assert_array_equal(moved[0], picture[0])
    assert np.abs(moved[1] - moved[0]).max() > 1


def test_looks_are_reproducible_and_differ_between_ids_and_splits():
    looks = [make_look(split, number) for split in LOOKS for number in range(40)]
    again = make_look("train", 7)
    np.testing.assert_array_equal(again.colors, looks[7].colors)
    assert len({look.name for look in looks}) == len(looks)
    assert len({look.colors.tobytes() for look in looks}) == len(looks)
    assert len({look.texture_seed for look in looks}) == len(looks)
    for look in looks:
        assert look.colors.min() >= 0 and look.colors.max() <= 255 and np.linalg.norm(look.light) == pytest.approx(1)
