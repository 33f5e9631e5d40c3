"""Software renderer: painter's algorithm over the faces of the figure, with exact keypoints and their visibility."""

from __future__ import annotations

import cv2
import numpy as np

from data_tools.demo.background import draw_background
from data_tools.demo.body import PosedBody
from data_tools.demo.camera import Camera
from data_tools.demo.look import Look
from data_tools.demo.parts import Part
from lisa_video.pose.keypoints import Keypoints

IN_SIGHT, HIDDEN, OUTSIDE = 1.0, 0.4, 0.0
"""Scores of a joint that can be seen, that lies behind a surface, and that lies outside the frame."""

# How deep a joint lies below its own skin, in metres, with some slack: a surface further in front than this hides it.
_OWN_DEPTH = np.array([0.03] * 5 + [0.13] * 2 + [0.09] * 2 + [0.08] * 2 + [0.18] * 2 + [0.12] * 2 + [0.11] * 2)

_SHIFT = 4  # binary digits of sub-pixel precision that OpenCV is given
_SHADOW = 0.42


def render_clip(body: PosedBody, look: Look, camera: Camera, size: int) -> tuple[np.ndarray, Keypoints]:
    """Render T frames.

    Args:
        body: the figure.
        look: colours, scene and light.
        camera: T frames.
        size: pixels of the square picture.

    Returns:
        (T, size, size, 3) uint8 RGB frames, and the keypoints of the one person in them (x right, y down, (0, 0) at
        the outer corner of the top left pixel; score is one of `IN_SIGHT`, `HIDDEN`, `OUTSIDE`).
    """
    large = size * supersampling(size)
    centre = body.keypoints.mean(axis=(0, 1)) * [1, 0, 1]
    scene, floor = draw_background(look, camera, centre, large)
    vertices = body.vertices.astype(np.float64)
    xy, depth = camera.project(vertices, large)
    joints_xy, joints_depth = camera.project(body.keypoints, large)
    shadow_xy, _ = camera.project(_on_floor(vertices, look.light), large)
    corners = vertices[:, body.faces]
    normal = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-12
    facing = ((corners[:, :, 0] - camera.position[:, None]) * normal).sum(axis=2) < 0
    shade = look.ambient + (1 - look.ambient) * (0.5 + 0.5 * normal @ look.light)
    color = np.clip(look.colors[body.part] * shade[..., None] * 1.04, 0, 255)

    frames = np.empty((len(vertices), size, size, 3), np.uint8)
    hidden = np.empty(joints_depth.shape, bool)
    for index, canvas in enumerate(scene):
        faces = np.nonzero(facing[index])[0]
        triangles, near = xy[index][body.faces[faces]], depth[index][body.faces[faces]]
        shadow = _shadow_mask(shadow_xy[index], body.hulls, large)
        canvas *= 1 - _SHADOW * (shadow * floor[index])[..., None]
        canvas = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
        order = np.argsort(-near.mean(axis=1) + 0.02 * (body.part[faces] == Part.EYE), kind="stable")
        _paint(canvas, triangles[order], color[index, faces[order]])
        frames[index] = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        hidden[index] = _surface_depth(joints_xy[index], triangles, near) < joints_depth[index] - _OWN_DEPTH
    joints_xy = (joints_xy * size / large).astype(np.float32)
    inside = ((joints_xy >= 0) & (joints_xy < size)).all(axis=2)
    score = np.where(inside, np.where(hidden, HIDDEN, IN_SIGHT), OUTSIDE).astype(np.float32)
    return frames, Keypoints(joints_xy[:, None], score[:, None], np.zeros(1, np.int64))


def supersampling(size: int) -> int:
    """Pixels drawn per pixel of the picture, along each axis."""
    return 3 if size <= 96 else 2


def _on_floor(vertices: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Where the shadows of (T, V, 3) vertices fall on the floor y = 0."""
    return vertices - vertices[..., 1:2] / light[1] * light


def _shadow_mask(xy: np.ndarray, hulls: tuple[slice, ...], size: int) -> np.ndarray:
    """(size, size) float32 in [0, 1]: soft shadow of the convex pieces, whose shadows are convex too."""
    mask = np.zeros((size, size), np.uint8)
    points = np.clip(xy, -4 * size, 5 * size).astype(np.float32)
    for hull in hulls:
        outline = cv2.convexHull(points[hull]) * (1 << _SHIFT)
        cv2.fillConvexPoly(mask, outline.round().astype(np.int32), 255, cv2.LINE_8, _SHIFT)
    width = size // 40 * 2 + 1
    return cv2.GaussianBlur(mask, (width, width), 0).astype(np.float32) / 255


def _paint(canvas: np.ndarray, triangles: np.ndarray, colors: np.ndarray) -> None:
    """Fill (N, 3, 2) triangles in the given order, farthest first, into the (S, S, 3) canvas."""
    # OpenCV puts (0, 0) at the middle of the top left pixel.
    points = ((triangles - 0.5) * (1 << _SHIFT)).round().astype(np.int32)
    for triangle, color in zip(points, colors.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, triangle, color, cv2.LINE_8, _SHIFT)


def _surface_depth(points: np.ndarray, triangles: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Depth of the nearest surface at pixels; infinity where there is none.

    Args:
        points: (K, 2) pixels.
        triangles: (N, 3, 2) pixels, those that face the camera.
        depth: (N, 3) metres of their corners.
    """
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-9, 1e-9, area)
    p = points[:, None]
    u, v = _cross(p - a, c - a) / area, _cross(b - a, p - a) / area
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    surface = depth[:, 0] + u * (depth[:, 1] - depth[:, 0]) + v * (depth[:, 2] - depth[:, 0])
    return np.where(inside, surface, np.inf).min(axis=1, initial=np.inf)


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
