"""Trains a classifier of handwritten digits.

    python train.py model=mlp optimizer=sgd optimizer.lr=0.1
    python train.py -m model=logreg,mlp,forest

The digits are 1,797 images of 8x8 pixels that come with scikit-learn: nothing is downloaded.
The output directory gets `metrics.json` and `model.pkl`. A run that finds a checkpoint there goes on from it.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from models import Images, Labels, Model

log = logging.getLogger(__name__)


@dataclass
class Split:
    """Images and labels of one part of the data."""

    images: Images
    labels: Labels


@dataclass
class History:
    """What was measured, one entry an epoch."""

    loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        return len(self.loss)


def load_splits(validation_fraction: float, test_fraction: float, seed: int) -> tuple[Split, Split, Split]:
    """Training, validation and test part, each with all digits in equal shares."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    rest_x, test_x, rest_y, test_y = train_test_split(
        images, labels, test_size=test_fraction, stratify=labels, random_state=seed
    )
    train_x, val_x, train_y, val_y = train_test_split(
        rest_x, rest_y, test_size=validation_fraction / (1 - test_fraction), stratify=rest_y, random_state=seed
    )
    return Split(train_x, train_y), Split(val_x, val_y), Split(test_x, test_y)


def save(path: Path, content: bytes) -> None:
    """Write the file so that it is there as a whole or not at all, even if the run is killed meanwhile."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Train as configured; returns the accuracy on the validation images."""
    output = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = output / "checkpoint.pkl"
    train, validation, test = load_splits(cfg.validation_fraction, cfg.test_fraction, cfg.seed)

    model: Model = instantiate(cfg.model, _convert_="all")
    history = History()
    if checkpoint.exists():
        # WHY: the checkpoint is this program's own, so unpickling it runs nothing foreign.
        model, measured = pickle.loads(checkpoint.read_bytes())  # noqa: S301
        history = History(**measured)
        log.info("going on from the checkpoint of epoch %d", history.epochs)

    while history.epochs < cfg.epochs:
        history.loss.append(model.fit_epoch(train.images, train.labels))
        history.validation_accuracy.append(model.accuracy(validation.images, validation.labels))
        save(checkpoint, pickle.dumps((model, asdict(history))))
        log.info(
            "epoch %d/%d: loss %.4f, validation accuracy %.4f",
            history.epochs,
            cfg.epochs,
            history.loss[-1],
            history.validation_accuracy[-1],
        )

    save(output / "model.pkl", pickle.dumps(model))
    metrics = {"test_accuracy": model.accuracy(test.images, test.labels), **asdict(history)}
    save(output / "metrics.json", json.dumps(metrics, indent=2).encode())
    checkpoint.unlink()
    return model.accuracy(validation.images, validation.labels)


if __name__ == "__main__":
    main()
