"""Feeding a training loop: shuffled batches, and a small real data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from graphdl.errors import ShapeError
from graphdl.trees import tree_leaves, tree_map

__all__ = ["Digits", "batches", "digits"]


def batches(
    x: Any,
    y: Any,
    batch_size: int,
    rng: np.random.Generator | int | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Go through the examples once, `batch_size` at a time.

    Args:
        x, y: arrays, or trees of arrays, that all have one length along their first axis.
        batch_size: examples a batch.
        rng: a NumPy generator (or a seed) to shuffle with; None keeps the order, and then the
            batches are views.
        drop_last: leave out the last batch if it is smaller than the others.

    >>> import numpy as np
    >>> [len(images) for images, labels in batches(np.zeros((10, 64)), np.zeros(10), 4)]
    [4, 4, 2]
    """
    if batch_size < 1:
        raise ValueError(f"batches needs a batch_size of at least 1, got {batch_size}")
    arrays: Any = (x, y)
    lengths = {len(leaf) for leaf in tree_leaves(arrays)}
    if len(lengths) != 1:
        raise ShapeError(f"batches needs arrays of one length, got lengths {sorted(lengths)}")
    count = lengths.pop()
    return _batches(arrays, count, batch_size, rng, drop_last)


def _batches(
    arrays: Any,
    count: int,
    batch_size: int,
    rng: np.random.Generator | int | None,
    drop_last: bool,
) -> Iterator[tuple[Any, Any]]:
    order = None if rng is None else np.random.default_rng(rng).permutation(count)
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        if drop_last and stop - start < batch_size:
            return
        rows: Any = slice(start, stop) if order is None else order[start:stop]
        batch: Any = tree_map(lambda leaf, rows=rows: leaf[rows], arrays)
        yield batch


class Digits(NamedTuple):
    """Handwritten digits: images of shape (n, 64) with values from 0 to 1, labels from 0 to 9."""

    train_images: NDArray[Any]
    train_labels: NDArray[Any]
    test_images: NDArray[Any]
    test_labels: NDArray[Any]


def digits(test_fraction: float = 0.2, seed: int = 0, dtype: DTypeLike = np.float32) -> Digits:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn, split at random.

    They are the test set of Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI
    Machine Learning Repository, 1998, doi:10.24432/C50P49. Nothing is downloaded.

    Args:
        test_fraction: the part of the examples held out for testing, between 0 and 1.
        seed: of the split.
        dtype: of the images.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"digits needs 0 < test_fraction < 1, got {test_fraction}")
    try:
        # Only here, because scikit-learn is an optional dependency.
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the handwritten digits come with scikit-learn, which is not installed; "
            "run: python -m pip install scikit-learn"
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = (images[order] / 16.0).astype(dtype), labels[order].astype(np.int64)
    held_out = round(len(images) * test_fraction)
    return Digits(images[held_out:], labels[held_out:], images[:held_out], labels[:held_out])
