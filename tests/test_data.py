"""Batches go through all examples once; the digits are split without overlap."""

import sys

import numpy as np
import pytest

import graphdl as gd
from graphdl.data import batches, digits

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def test_without_a_generator_batches_are_views_in_order():
    got = list(batches(X, Y, 4))
    assert [labels.tolist() for _, labels in got] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(np.shares_memory(images, X) for images, _ in got)


@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
def test_shuffled_batches_hold_every_example_once_and_keep_pairs_together(size):
    got = list(batches(X, Y, size, rng=3))
    assert sorted(np.concatenate([labels for _, labels in got])) == list(range(10))
    assert all(np.array_equal(images, X[labels]) for images, labels in got)
    assert [len(labels) for _, labels in got[:-1]] == [size] * (len(got) - 1)


def test_the_seed_decides_the_order_and_a_generator_goes_on():
    def order(rng):
        return np.concatenate([labels for _, labels in batches(X, Y, 4, rng)]).tolist()

    assert order(3) == order(3) != order(4)
    rng = np.random.default_rng(3)
    assert order(rng) == order(3)
    assert order(rng) != order(3)


def test_the_last_small_batch_can_be_left_out():
    assert [len(labels) for _, labels in batches(X, Y, 4, drop_last=True)] == [4, 4]
    assert [len(labels) for _, labels in batches(X, Y, 5, drop_last=True)] == [5, 5]


def test_trees_of_arrays_are_cut_alike():
    for x, _ in batches({"a": X, "b": [Y]}, Y, 3):
        assert len(x["a"]) == len(x["b"][0])


def test_what_does_not_fit_is_refused_before_the_first_batch():
    with pytest.raises(gd.GraphError, match=r"arrays of one length, got lengths \[9, 10\]"):
        batches(X, Y[:9], 4)
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        batches(X, Y, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_digits_are_real_scaled_and_split_without_overlap(dtype):
    found = digits(test_fraction=0.25, seed=1, dtype=dtype)
    images = np.concatenate([found.train_images, found.test_images])
    assert images.shape == (1797, 64)
    assert images.dtype == dtype
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert len(found.test_labels) == round(1797 * 0.25) == len(found.test_images)
    # The data set holds no image twice.
    assert len(np.unique(images, axis=0)) == 1797
    labels = np.concatenate([found.train_labels, found.test_labels])
    np.testing.assert_array_equal(np.unique(labels), np.arange(10))


def test_missing_scikit_learn_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="python -m pip install scikit-learn"):
        digits()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_wrong_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match="0 < test_fraction < 1"):
        digits(test_fraction=fraction)
