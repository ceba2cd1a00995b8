"""From what files hold, arrays, to a `Dataset`: labels numbered, inputs scaled."""

import numpy as np
import torch

from gpu.train.data.dataset import Dataset
from gpu.train.data.scaling import affine, scaled, scaled_images
from gpu.train.errors import DataError

Part = tuple[np.ndarray, np.ndarray]


def tabular(name: str, train: Part, test: Part, scaling: str, *, stand_in: str = "") -> Dataset:
    """The data set of features in float64 and labels, scaled by the training data's range or moments."""
    (X_train, labels), (X_test, test_labels) = train, test
    offset, factor = affine(X_train, scaling)
    classes, y_train = np.unique(labels, return_inverse=True)
    unknown = np.setdiff1d(test_labels, classes)
    if len(unknown):
        raise DataError(
            f"{name}.t: label {unknown[0]:g} does not occur in the training data, whose labels are {classes}"
        )
    return Dataset(
        name,
        scaled(name, X_train, offset, factor),
        torch.from_numpy(y_train.astype(np.int64)),
        scaled(f"{name}.t", X_test, offset, factor),
        torch.from_numpy(np.searchsorted(classes, test_labels)),
        tuple(classes.tolist()),
        stand_in,
    )


def images(name: str, train: Part, test: Part, scaling: str, classes: int, *, stand_in: str = "") -> Dataset:
    """The data set of images (n, 3, 32, 32) of bytes and of labels from 0 to `classes` − 1.

    The kernel sees what the network does: the scaled image, flattened.
    """
    X_train, X_test = scaled_images(train[0], test[0], scaling)
    labels = (torch.from_numpy(y.astype(np.int64)) for _, y in (train, test))
    return Dataset(name, X_train, next(labels), X_test, next(labels), tuple(range(classes)), stand_in)
