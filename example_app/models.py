"""The models that train.py can train, one epoch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

Images = NDArray[np.float64]
Labels = NDArray[np.int64]

CLASSES = np.arange(10)


class Model(Protocol):
    """What train.py needs of a model. Pickling it keeps all of its state."""

    def fit_epoch(self, images: Images, labels: Labels) -> float:
        """Train for one epoch and return the training loss."""
        ...

    def accuracy(self, images: Images, labels: Labels) -> float:
        """Share of the images whose digit is told right."""
        ...


class Network:
    """A feed-forward network; with no hidden layer it is logistic regression."""

    def __init__(
        self, hidden: Sequence[int], alpha: float, batch_size: int, optimizer: Mapping[str, Any], seed: int
    ) -> None:
        settings = dict(optimizer)
        self.classifier = MLPClassifier(
            hidden_layer_sizes=tuple(hidden),
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=settings.pop("lr"),
            random_state=seed,
            **settings,
        )

    def fit_epoch(self, images: Images, labels: Labels) -> float:
        self.classifier.partial_fit(images, labels, classes=CLASSES)
        return float(self.classifier.loss_)

    def accuracy(self, images: Images, labels: Labels) -> float:
        return float(self.classifier.score(images, labels))


class Forest:
    """A random forest that grows by some trees in every epoch."""

    def __init__(self, trees_per_epoch: int, max_depth: int | None, seed: int) -> None:
        self.trees_per_epoch = trees_per_epoch
        self.classifier = RandomForestClassifier(
            n_estimators=0, max_depth=max_depth, warm_start=True, random_state=seed
        )

    def fit_epoch(self, images: Images, labels: Labels) -> float:
        self.classifier.n_estimators += self.trees_per_epoch
        self.classifier.fit(images, labels)
        return float(log_loss(labels, self.classifier.predict_proba(images), labels=CLASSES))

    def accuracy(self, images: Images, labels: Labels) -> float:
        return float(self.classifier.score(images, labels))
