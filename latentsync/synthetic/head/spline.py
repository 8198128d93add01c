"""Thin-plate splines in the plane: the smoothest shifts that are exact at given places (Bookstein 1989)."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class ThinPlateSpline:
    """Carries values known at scattered places to everywhere; solved once for many sets of values.

    Args:
        positions: (n, 2) pixels where values are known.
        scale: length in pixels that is taken as 1, for good numbers.
        slack: how far the values may be missed for the sake of smoothness, 0 not at all.
    """

    def __init__(self, positions: Array, scale: float, slack: float = 1e-6) -> None:
        self._centres, self._scale = positions / scale, scale
        count = len(positions)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(self._centres, self._centres) + slack * np.eye(count)
        system[:count, count:] = np.concatenate([np.ones((count, 1)), self._centres], axis=1)
        system[count:, :count] = system[:count, count:].T
        self._system = system

    def __call__(self, values: Array, where: Array) -> Array:
        """Values (n, v) at the places -> (m, v) at ``where`` (m, 2) pixels."""
        weights = np.linalg.solve(self._system, np.concatenate([values, np.zeros((3, values.shape[1]))]))
        points = where / self._scale
        basis = np.concatenate([_kernel(points, self._centres), np.ones((len(points), 1)), points], axis=1)
        return np.asarray(basis @ weights)


def squared_distances(a: Array, b: Array) -> Array:
    """(n, 2) and (m, 2) places -> (n, m)."""
    squared = a @ (-2 * b.T)
    squared += (a**2).sum(1)[:, None]
    squared += (b**2).sum(1)[None]
    return np.asarray(np.maximum(squared, 0, out=squared))


def _kernel(a: Array, b: Array) -> Array:
    squared = squared_distances(a, b)
    return np.asarray(0.5 * squared * np.log(squared + 1e-12))
