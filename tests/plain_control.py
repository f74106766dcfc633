"""gd.scan and its like as plain Python loops over NumPy arrays: what the compiled ones must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree


def scan(
    f: Any, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False
) -> Any:
    count = length if length is not None else len(optree.tree_leaves(xs)[0])
    order = range(count)[::-1] if reverse else range(count)
    carry, ys = init, []
    for t in order:
        carry, y = f(carry, None if xs is None else optree.tree_map(lambda x: x[t], xs))  # noqa: B023
        ys.append(y)
    if reverse:
        ys.reverse()
    stacked = optree.tree_map(lambda *rows: np.stack(rows), *ys) if ys[0] is not None else None
    return carry, stacked


def fori_loop(lower: int, upper: int, body: Any, init: Any) -> Any:
    for i in range(int(lower), int(upper)):
        init = body(i, init)
    return init


def while_loop(cond: Any, body: Any, init: Any) -> Any:
    while cond(init):
        init = body(init)
    return init


def cond(pred: Any, true: Any, false: Any, *args: Any) -> Any:
    return true(*args) if pred else false(*args)


def switch(index: Any, branches: Any, *args: Any) -> Any:
    return branches[min(max(int(index), 0), len(branches) - 1)](*args)


def map(f: Any, xs: Any) -> Any:
    return scan(lambda carry, x: (carry, f(x)), None, xs)[1]
