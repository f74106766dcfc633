"""Blocks of memory packed: none overlaps another one of its time, and few bytes are lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphdl.kernels.packing import Block, Layout, needed, packed


def check(blocks: list[Block]) -> Layout:
    found = packed(blocks)
    ends = [place + block.size for place, block in zip(found.offsets, blocks, strict=True)]
    assert found.size == max(ends, default=0)
    for (i, a), (j, b) in itertools.combinations(enumerate(blocks), 2):
        if a.first <= b.last and b.first <= a.last:
            assert ends[i] <= found.offsets[j] or ends[j] <= found.offsets[i]
    moments = range(max((block.last for block in blocks), default=-1) + 1)
    used = [sum(b.size for b in blocks if b.first <= at <= b.last) for at in moments]
    assert needed(blocks) == max(used, default=0) <= found.size
    return found


def test_nothing_takes_nothing() -> None:
    assert check([]) == Layout([], 0)


def test_a_row_of_values_takes_two_places() -> None:
    blocks = [Block(64 * 10, i, i + 1) for i in range(5000)]
    found = packed(blocks)
    assert found.size == needed(blocks) == 2 * 640


def test_gaps_that_come_about_one_by_one_are_avoided() -> None:
    """The second block, where it is placed behind the first, leaves no room for the third."""
    found = check([Block(100, 0, 1), Block(50, 0, 3), Block(150, 2, 4)])
    assert found.size == 200


@pytest.mark.parametrize("seed", range(20))
def test_random_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, count = 30, 60
    firsts = np.sort(rng.integers(0, steps, count))
    lengths = rng.geometric(0.2, count)
    sizes = 64 * rng.integers(1, 50, count)
    blocks = [
        Block(int(size), int(first), int(min(first + length, steps)))
        for size, first, length in zip(sizes, firsts, lengths, strict=True)
    ]
    assert check(blocks).size <= 1.15 * needed(blocks)
