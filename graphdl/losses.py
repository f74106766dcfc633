"""Losses and scores: from predictions and targets to one number, the mean over all examples.

All of them run on NumPy arrays and inside `gd.compile` and the gradient transforms. Predictions
come first. Their dtype is the dtype of the result; targets are cast to it. Shapes have to agree
exactly: broadcasting a (n, 1) prediction against a (n,) target would silently train on n x n pairs.
"""

from typing import Any, TypeAlias

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions import logsumexp, one_hot, softplus

__all__ = [
    "accuracy",
    "binary_cross_entropy",
    "huber",
    "mean_absolute_error",
    "mean_squared_error",
    "softmax_cross_entropy",
]

Array: TypeAlias = Any
"""A NumPy array, or the traced value that stands for one."""


def mean_squared_error(predictions: Array, targets: Array) -> Array:
    """Mean of `(predictions - targets) ** 2` over all elements.

    >>> import numpy as np
    >>> float(mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    difference = predictions - _targets("mean_squared_error", predictions, targets)
    return np.mean(difference * difference)


def mean_absolute_error(predictions: Array, targets: Array) -> Array:
    """Mean of `|predictions - targets|` over all elements.

    >>> import numpy as np
    >>> float(mean_absolute_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    1.0
    """
    return np.mean(np.abs(predictions - _targets("mean_absolute_error", predictions, targets)))


def huber(predictions: Array, targets: Array, delta: float = 1.0) -> Array:
    """Mean of a loss that is quadratic for errors up to `delta` and linear beyond.

    With `e = |predictions - targets|` it is `e**2 / 2` where `e <= delta`, and
    `delta * (e - delta / 2)` elsewhere: Huber, "Robust Estimation of a Location Parameter", Annals
    of Mathematical Statistics 35 (1964).

    >>> import numpy as np
    >>> float(huber(np.array([1.0, 5.0]), np.array([0.0, 0.0])))
    2.5
    """
    if delta <= 0:
        raise ValueError(f"huber needs delta > 0, got {delta}")
    error = np.abs(predictions - _targets("huber", predictions, targets))
    # With the part of the error below delta named `inner`, both branches are one expression.
    inner = np.minimum(error, delta)
    return np.mean(inner * (error - 0.5 * inner))


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean cross entropy of yes-or-no predictions, from logits.

    `-targets * log(sigmoid(logits)) - (1 - targets) * log(1 - sigmoid(logits))`, computed without
    the sigmoid, so that it neither overflows nor loses small losses.

    Args:
        logits: real numbers of any shape; positive means yes.
        targets: 0, 1 or a probability between, of the same shape.

    >>> import numpy as np
    >>> loss = binary_cross_entropy(np.array([0.0, 1000.0]), np.array([1.0, 1.0]))
    >>> round(float(loss), 6)  # log(2) / 2
    0.346574
    """
    targets = _targets("binary_cross_entropy", logits, targets)
    _check_range("binary_cross_entropy", "targets", targets, 1)
    # With s = softplus(-|z|) it is s + (1 - t) z for z > 0 and s - t z elsewhere: sums of what is
    # not negative, so nothing cancels. |z| is written out because its derivative at 0, as that of
    # the usual max(z, 0) - z t + s, would be that of a tie.
    positive = logits > 0
    folded = np.where(positive, -logits, logits)
    linear = np.where(positive, (1 - targets) * logits, -targets * logits)
    return np.mean(softplus(folded) + linear)


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross entropy of a choice between classes, from logits.

    Args:
        logits: shape (..., classes).
        labels: integers of shape (...), each below `classes`; or probabilities of shape
            (..., classes) that sum to 1 along the last axis, one-hot rows for instance. An integer
            that is no class is refused where labels are plain arrays; a traced one, which cannot be
            looked at, adds only the log-normaliser of its row.

    >>> import numpy as np
    >>> logits = np.zeros((2, 4))
    >>> round(float(softmax_cross_entropy(logits, np.array([0, 3]))), 6)  # log(4)
    1.386294
    """
    labels = _array(labels)
    picked: Array
    if _are_classes("softmax_cross_entropy", logits, labels):
        chosen = one_hot(labels, logits.shape[-1], dtype=np.bool_)
        # `where`, not a product: a logit of -inf (a masked class) times 0 would be NaN.
        picked = np.sum(np.where(chosen, logits, 0), axis=-1)
    else:
        picked = np.sum(labels.astype(logits.dtype) * logits, axis=-1)
    return np.mean(logsumexp(logits, axis=-1) - picked)


def accuracy(logits: Array, labels: Array) -> Array:
    """The fraction of examples whose largest logit is that of the label.

    Args:
        logits: shape (..., classes); probabilities do as well.
        labels: integers of shape (...), or one-hot rows of shape (..., classes).

    >>> import numpy as np
    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    labels = _array(labels)
    if not _are_classes("accuracy", logits, labels):
        labels = np.argmax(labels, axis=-1)
    return np.mean(np.argmax(logits, axis=-1) == labels)


def _array(values: Array) -> Array:
    """Lists and numbers as arrays; what already has a dtype (traced values too) as it is."""
    return values if hasattr(values, "dtype") else np.asarray(values)


def _targets(loss: str, predictions: Array, targets: Array) -> Array:
    targets = _array(targets)
    if predictions.shape != targets.shape:
        raise ShapeError(
            f"{loss} needs predictions and targets of one shape, "
            f"got {tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    return targets.astype(predictions.dtype)


def _check_range(loss: str, what: str, values: Array, greatest: int) -> None:
    """Refuse numbers that are not between 0 and the greatest, where they are known."""
    if isinstance(values, np.ndarray) and values.size:
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= greatest):
            raise ArgumentError(
                f"{loss} needs {what} from 0 to {greatest}, got some from {low} to {high}"
            )


def _are_classes(loss: str, logits: Array, labels: Array) -> bool:
    """True for integer labels, False for one row of probabilities an example."""
    if logits.ndim > 0 and labels.shape == logits.shape[:-1]:
        if not np.issubdtype(labels.dtype, np.integer):
            raise DtypeError(
                f"{loss} needs integer labels where they have shape {tuple(labels.shape)}, "
                f"got {labels.dtype}; write labels.astype(np.int64)"
            )
        _check_range(loss, "labels", labels, logits.shape[-1] - 1)
        return True
    if logits.ndim > 0 and labels.shape == logits.shape:
        return False
    raise ShapeError(
        f"{loss} with logits of shape {tuple(logits.shape)} needs integer labels of shape "
        f"{tuple(logits.shape[:-1])} or one-hot labels of shape {tuple(logits.shape)}, "
        f"got {tuple(labels.shape)}"
    )
