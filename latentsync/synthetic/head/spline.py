"""Thin-plate splines in the plane: the smoothest interpolation of scattered values (Bookstein 1989)."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class ThinPlateSpline:
    """Interpolates values given at scattered positions; any number of value sets can share the positions.

    Args:
        positions: (n, 2) pixels at which values are given.
        scale: length unit in pixels, for numerical conditioning.
        regularization: weight of smoothness against exact interpolation; 0 interpolates exactly.
    """

    def __init__(self, positions: Array, scale: float, regularization: float = 1e-6) -> None:
        self._centers, self._scale = positions / scale, scale
        count = len(positions)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(self._centers, self._centers) + regularization * np.eye(count)
        system[:count, count:] = np.concatenate([np.ones((count, 1)), self._centers], axis=1)
        system[count:, :count] = system[:count, count:].T
        self._system = system

    def __call__(self, values: Array, queries: Array) -> Array:
        """Values (n, v) at the given positions -> (m, v) at ``queries`` (m, 2), in pixels."""
        weights = np.linalg.solve(self._system, np.concatenate([values, np.zeros((3, values.shape[1]))]))
        points = queries / self._scale
        basis = np.concatenate([_kernel(points, self._centers), np.ones((len(points), 1)), points], axis=1)
        return np.asarray(basis @ weights)


def squared_distances(a: Array, b: Array) -> Array:
    """Pairwise squared distances of points (n, 2) and (m, 2): (n, m)."""
    squared = a @ (-2 * b.T)
    squared += (a**2).sum(1)[:, None]
    squared += (b**2).sum(1)[None]
    return np.asarray(np.maximum(squared, 0, out=squared))


def _kernel(a: Array, b: Array) -> Array:
    squared = squared_distances(a, b)
    return np.asarray(0.5 * squared * np.log(squared + 1e-12))
