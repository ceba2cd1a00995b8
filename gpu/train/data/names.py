"""The table of names: which data are bundled, which have a format of their own; all others are LIBSVM files."""

from collections.abc import Callable
from pathlib import Path

from gpu.train.data import cifar10, libsvm, reviews, scans, tweets
from gpu.train.data.bundled import BUNDLED
from gpu.train.data.dataset import Dataset
from gpu.train.data.scaling import require_scaling
from gpu.train.data.table1 import counts

FORMATS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10.load,
    "s-cov": scans.load,
    "cov-tw": tweets.load,
    "imdb": reviews.load,
}
# What an input is, of names whose data are not features.
KINDS = {
    **dict.fromkeys(("digits-32", "cifar10", "s-cov"), "image"),
    **dict.fromkeys(("words", "cov-tw", "imdb"), "text"),
}


def load(name: str, folder: Path | None = None, *, scaling: str = "unit") -> Dataset:
    """Data by name: bundled, or what `folder` holds of cifar10, s-cov, cov-tw, imdb or the LIBSVM files `name` and
    `name`.t (mnist, usps, …); scaled by the training data's range or moments.

    scaling: "none"; "unit" to [0, 1]; "symmetric" to [−1, 1]; "standard" to mean 0, variance 1 (images: channel by
    channel). Of text it scales what the kernel sees. Raises DataError, with the file's name and what to do; also where
    a data set of the paper has not the paper's number of instances.
    """
    require_scaling(scaling)
    if name in BUNDLED:
        make, stands_for = BUNDLED[name]
        return make(scaling, stands_for)
    if name in FORMATS:
        return FORMATS[name](folder, scaling=scaling, counts=counts()[name])
    return libsvm.load(name, folder, scaling=scaling, counts=counts().get(name))


def kind(name: str) -> str:
    """The `Dataset.kind` of the data of that name, without loading them."""
    return KINDS.get(name, "features")


def stand_in(name: str) -> str:
    """What the data of that name stand in for; empty where they stand for themselves."""
    return BUNDLED[name][1] if name in BUNDLED else ""
