"""Intersections of rays with unit primitives.

An object is a unit primitive moved by an affine map. Rays are moved into the unit frame instead; an affine map
preserves the parameter t of `origin + t * direction`, and since camera rays have z = 1 in the camera frame, t is the
z-depth.

All arrays have the components first, `[3, N]`, so that arithmetic runs over contiguous memory.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

NEAR = 0.05
"""Hits closer than this (z-depth in metres) do not count."""

SHAPES = ("ball", "box", "cylinder", "cone")


def intersect(
    shape: int, origin: Float[np.ndarray, "3 N"], direction: Float[np.ndarray, "3 N"], near: float = NEAR
) -> Float[np.ndarray, " N"]:
    """The smallest t > `near` at which rays enter a unit primitive from outside, or infinity.

    Args:
        shape: Index into `SHAPES`: the unit ball; the box, cylinder and cone that fill [-1, 1]^3, y being their axis
            (the apex of the cone is at y = -1, which is up).
        origin: Origins of the rays in the unit frame.
        direction: Their directions, of any length.
        near: Smallest t that counts.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t, hit = _INTERSECTIONS[shape](origin, direction)
        return np.where(hit & (t > near), t, np.float32(np.inf))


def _slab(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entry and exit of the slab between -1 and 1 along each axis."""
    inverse = 1 / direction
    middle, half = -origin * inverse, np.abs(inverse)
    return middle - half, middle + half


def _quadratic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of a t^2 + 2 b t + c, NaN where there are none."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def _ball(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = d[0] * d[0] + d[1] * d[1] + d[2] * d[2], o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    # The discriminant from the point nearest to the centre: b^2 - a c cancels badly in float32 for distant balls.
    px, py, pz = (o[i] - (b / a) * d[i] for i in range(3))
    rest = 1 - (px * px + py * py + pz * pz)
    return -b / a - np.sqrt(rest / a), rest >= 0


def _box(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    enter, leave = _slab(o, d)
    t = np.maximum(np.maximum(enter[0], enter[1]), enter[2])
    return t, t <= np.minimum(np.minimum(leave[0], leave[1]), leave[2])


def _cylinder(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    enter, leave = _slab(o[1], d[1])
    first, last = _quadratic(d[0] * d[0] + d[2] * d[2], o[0] * d[0] + o[2] * d[2], o[0] * o[0] + o[2] * o[2] - 1)
    t = np.maximum(enter, first)
    return t, t <= np.minimum(leave, last)


def _cone(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius, slope = (o[1] + 1) / 2, d[1] / 2
    roots = _quadratic(
        d[0] * d[0] + d[2] * d[2] - slope * slope,
        o[0] * d[0] + o[2] * d[2] - radius * slope,
        o[0] * o[0] + o[2] * o[2] - radius * radius,
    )
    t = np.full(o.shape[1], np.inf, dtype=np.float32)
    for root in roots:
        on_mantle = np.abs(o[1] + root * d[1]) <= 1
        t = np.where(on_mantle & (root > 0), np.minimum(t, root), t)
    base = (1 - o[1]) / d[1]
    on_base = (o[0] + base * d[0]) ** 2 + (o[2] + base * d[2]) ** 2 <= 1
    t = np.where(on_base & (base > 0), np.minimum(t, base), t)
    return t, np.isfinite(t)


_INTERSECTIONS: tuple[Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], ...] = (
    _ball,
    _box,
    _cylinder,
    _cone,
)
