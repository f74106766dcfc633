"""Windows of arrays: along each axis the positions start, start + step, ..., `size` of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphdl.types import Shape


def places(starts: Shape, sizes: Shape, steps: Shape) -> list[range]:
    """The positions of a window along each axis.

    >>> places((0, 5), (2, 3), (1, -2))
    [range(0, 2), range(5, -1, -2)]
    """
    return [
        range(start, start + size * step, step)
        for start, size, step in zip(starts, sizes, steps, strict=True)
    ]


def are_disjoint(a: Sequence[range], b: Sequence[range]) -> bool:
    """Whether two windows are seen to have no element in common; neither is empty."""
    return any(_never_meet(one, other) for one, other in zip(a, b, strict=True))


def _never_meet(a: range, b: range) -> bool:
    if max(min(a[0], a[-1]), min(b[0], b[-1])) > min(max(a[0], a[-1]), max(b[0], b[-1])):
        return True
    common = math.gcd(a.step, b.step)  # they meet only where they agree modulo this
    return len(a) > 1 and len(b) > 1 and (a[0] - b[0]) % common != 0


def is_within(a: Sequence[range], b: Sequence[range]) -> bool:
    """Whether all elements of a window are elements of another; neither is empty."""
    return all(
        one[0] in other and one[-1] in other and (len(one) == 1 or one.step % other.step == 0)
        for one, other in zip(a, b, strict=True)
    )


def window_in(a: Sequence[range], b: Sequence[range]) -> dict[str, Any]:
    """The attributes of a slice that takes window a, given only window b, which holds it.

    >>> window_in([range(2, 6, 2)], [range(0, 10, 2)])
    {'starts': (1,), 'sizes': (2,), 'steps': (1,)}
    """
    pairs = list(zip(a, b, strict=True))
    return {
        "starts": tuple(other.index(one[0]) for one, other in pairs),
        "sizes": tuple(len(one) for one in a),
        "steps": tuple(one.step // other.step if len(one) > 1 else 1 for one, other in pairs),
    }
