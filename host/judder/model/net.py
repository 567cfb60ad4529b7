"""A small dense net that tells labels apart: trained by scikit-learn, kept as the layers of a model file."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from judder.model.clusters import Table, moments
from judder.model.file import Layer, forward

HIDDEN = (20, 10)


def fit(table: Table, labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[Layer, ...]]:
    """Classes, sorted, and layers that take features as they come."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    mean, deviation = moments(table)
    trained = MLPClassifier(HIDDEN, alpha=0.1, max_iter=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is held to held-out windows instead
        trained.fit((table - mean) / deviation, list(labels))
    return tuple(str(name) for name in trained.classes_), layers(trained, mean, deviation)


def layers(trained: Any, mean: Table, deviation: Table) -> tuple[Layer, ...]:
    """Of an MLPClassifier on standardised features: mean and deviation go into the first layer.

    Of two classes scikit-learn knows one output, the logistic function of which is the second one's probability: so is
    the softmax of 0 and it.
    """
    weights = [np.asarray(one, np.float64).T for one in trained.coefs_]
    biases = [np.asarray(one, np.float64) for one in trained.intercepts_]
    weights[0] = weights[0] / deviation
    biases[0] = biases[0] - weights[0] @ mean
    if trained.out_activation_ == "logistic":
        weights[-1] = np.concatenate((np.zeros_like(weights[-1]), weights[-1]))
        biases[-1] = np.concatenate(([0.0], biases[-1]))
    activations = ["relu"] * (len(weights) - 1) + ["softmax"]
    return tuple(
        Layer(np.asarray(weight, np.float32), np.asarray(bias, np.float32), activation)
        for weight, bias, activation in zip(weights, biases, activations, strict=True)
    )


def most_probable(of: Sequence[Layer], table: Table) -> npt.NDArray[np.int64]:
    """The class of each window, by number."""
    return np.asarray(forward(of, table).argmax(axis=1))


def held_out(table: Table, labels: Sequence[str], fold: npt.NDArray[np.int64]) -> list[str]:
    """What nets of the windows in all folds but its own take each window for; "" when they could not be trained."""
    found = [""] * len(labels)
    for number in np.unique(fold):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        known = [labels[int(place)] for place in inside]
        if len(set(known)) < 2:
            continue
        classes, of = fit(table[inside], known)
        for place, best in zip(outside, most_probable(of, table[outside]), strict=True):
            found[place] = classes[best]
    return found
