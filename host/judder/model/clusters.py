"""Clusters around healthy windows, and from which distance on a window is none.

`fit` whitens first: each direction in which healthy windows vary counts alike, whether they vary much in it, with
speed and load, or hardly at all; of these a defect shows first. `fit_standard` is K-means as Edge Impulse trains it.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from judder.model.file import Clusters

Table = npt.NDArray[np.float64]
"""Windows by features."""
Fit = Callable[[Table], Clusters]

SHRUNK_BY = 0.001
"""Of the covariance towards the identity: keeps the least direction from being noise multiplied."""
SPREADS = 3
"""Standard deviations above the mean of held-out scores: the threshold."""
_CONSTANT = 1e-4


def moments(table: Table) -> tuple[Table, Table]:
    """Mean and standard deviation of each feature; 1 for one that does not vary, as float32 could not tell it."""
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    return mean, np.where(deviation > _CONSTANT * np.maximum(1, np.abs(mean)), deviation, 1.0)


def fit(table: Table, chosen: tuple[int, ...], number: int) -> Clusters:
    """In the two thirds of directions in which the windows vary least, each scaled to their variation."""
    mean, deviation = moments(table[:, chosen])
    standard = (table[:, chosen] - mean) / deviation
    covariance = (1 - SHRUNK_BY) * np.cov(standard.T) + SHRUNK_BY * np.eye(len(chosen))
    variances, directions = np.linalg.eigh(covariance)  # the least variance first
    kept = directions_kept(len(chosen))
    projection = (directions / np.sqrt(variances))[:, :kept].T
    return _reaching(table, chosen, mean, deviation, _centers(standard @ projection.T, number), projection)


def fit_standard(table: Table, chosen: tuple[int, ...], number: int) -> Clusters:
    """Of standardised features."""
    mean, deviation = moments(table[:, chosen])
    return _reaching(table, chosen, mean, deviation, _centers((table[:, chosen] - mean) / deviation, number), None)


def directions_kept(features: int) -> int:
    """Of so many features."""
    return features - features // 3


def held_out(table: Table, fold: npt.NDArray[np.int64], fit_some: Fit) -> Table:
    """The score of each window by clusters of the windows in all folds but its own."""
    found = np.empty(len(table))
    for number in np.unique(fold):
        out = fold == number
        found[out] = fit_some(table[~out]).scores(table[out])
    return found


def threshold(of_held_out: Table) -> float:
    """From which score on a window is an event."""
    return float(of_held_out.mean() + SPREADS * of_held_out.std())


def _centers(points: Table, number: int) -> Table:
    if number == 1:
        return np.asarray(points.mean(axis=0, keepdims=True))
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different windows than clusters: some coincide
        found: Table = KMeans(number, n_init=3, random_state=0).fit(points).cluster_centers_
    return found


def _reaching(
    table: Table, chosen: tuple[int, ...], mean: Table, deviation: Table, centers: Table, projection: Table | None
) -> Clusters:
    """With the reach of each: the distance of its farthest window, by the numbers that the file will hold."""
    tensors = [np.asarray(one, np.float32) for one in (mean, deviation, centers, np.zeros(len(centers)))]
    projected = None if projection is None else np.asarray(projection, np.float32)
    of = Clusters(chosen, tensors[0], tensors[1], tensors[2], tensors[3], 0.0, projected)
    distances = of.distances(table)
    nearest = distances.argmin(axis=1)
    reach = [distances[nearest == number, number].max(initial=0.0) for number in range(len(centers))]
    return replace(of, reach=np.asarray(reach, np.float32))
