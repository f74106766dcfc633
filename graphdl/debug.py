"""Looking into compiled code while it runs: `gd.debug.print(x)` and `gd.debug.callback(f, *args)`.

In a traced function they write down that something is to happen when the program runs; elsewhere
they happen at once. They happen in the order in which they are written, also in loops and branches,
in compiled programs and in `Graph.evaluate`, and whether anything is computed from them or not.

    loops, branches   at every step; in the branch that runs
    gd.grad           with the values of the forward pass, once; where a gradient computes something
                      anew (gd.checkpoint, memory_budget=) it does not happen a second time
    gd.vmap           for each example, in the order of the batch, and for all of them before the
                      next effect begins. Of a branch or a while_loop in which the examples differ,
                      also for those that do not take part
    threads           one at a time; Python's lock is taken for it

A callback must not call the compiled function that it is called from.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.kernels.callbacks import Callback
from graphdl.ops import control
from graphdl.ops.op import Op
from graphdl.tracing import Trace, TracedArray, as_traced, current_trace
from graphdl.transforms.effects import TOKEN, token_of
from graphdl.trees import flatten, unflatten
from graphdl.types import kind_of

__all__ = ["callback", "print"]


def callback(f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call f(*args, **kwargs) when the program runs; what it returns is dropped.

    Args:
        f: a Python function. What it raises, the call of the program raises when it has ended.
        args, kwargs: arrays, numbers, or trees of them, traced or not; f gets copies as NumPy
            arrays, and 0-d ones as NumPy numbers. All else it gets as it is.

    >>> import numpy as np, graphdl as gd
    >>> seen = []
    >>> @gd.compile
    ... def f(x):
    ...     gd.debug.callback(seen.append, x[0])
    ...     return x * 2
    >>> f(np.array([3.0, 4.0])), seen
    (array([6., 8.]), [np.float64(3.0)])
    """
    trace = current_trace()
    if trace is None:
        f(*args, **kwargs)
        return
    leaves, tree = flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, TracedArray)]

    def run(*values: Any) -> None:
        whole = list(leaves)
        for place, value in zip(places, _joined(values, is_complex), strict=True):
            whole[place] = value
        given, named = unflatten(tree, whole)
        f(*given, **named)

    traced = [leaves[i] for i in places]
    is_complex = [kind_of(value.dtype) == "c" for value in traced]
    _happen(run, _parted(traced), trace)


def print(*args: Any, **kwargs: Any) -> None:
    """Print values when the program runs.

    `print(x, y)` prints them as Python's `print` does. `print("loss {:.3f} at {step}", loss,
    step=i)`, whose first argument is a text with braces, prints the text formatted with the rest.

    >>> import numpy as np, graphdl as gd
    >>> @gd.compile
    ... def total(x):
    ...     def step(c, row):
    ...         gd.debug.print("{} + {:.1f}", c, row)
    ...         return c + row, None
    ...     return gd.scan(step, 0.0, x)[0]
    >>> float(total(np.array([1.0, 2.0])))
    0.0 + 1.0
    1.0 + 2.0
    3.0
    """
    callback(_print, *args, **kwargs)


def _print(*args: Any, **kwargs: Any) -> None:
    if args and isinstance(args[0], str) and ("{" in args[0] or kwargs):
        builtins.print(args[0].format(*args[1:], **kwargs), flush=True)
    else:
        builtins.print(*args, **kwargs, flush=True)


def _happen(run: Callable[..., None], values: Sequence[TracedArray], trace: Trace) -> None:
    """Let `run` be called with the values, after all effects so far."""
    function = Callback(run)

    def evaluate(token: Any, *operands: Any) -> Any:
        function.call(operands)
        return control.pack([np.int64(0)], [TOKEN])

    op = Op(
        "debug",
        "user",
        lambda *operands: control.packed_type([TOKEN]),
        evaluate,
        lambda gs, outs, *inputs: [None] * len(inputs),
        results=lambda *operands: [TOKEN],
        failure="a callback raised an exception",
        symbol=function.symbol,
    )
    token = as_traced(token_of(trace), trace)
    packed = token.apply_op(op, (token, *(as_traced(value, trace) for value in values)), {})
    trace.token = control.items(packed, [TOKEN])[0]


def _parted(values: Sequence[TracedArray]) -> list[TracedArray]:
    """The values, complex ones as their real and imaginary parts."""
    found = []
    for value in values:
        found += [np.real(value), np.imag(value)] if kind_of(value.dtype) == "c" else [value]
    return found


def _joined(values: Sequence[Any], is_complex: Sequence[bool]) -> list[Any]:
    """What `_parted` took apart."""
    left = iter(values)
    return [next(left) + 1j * next(left) if flag else next(left) for flag in is_complex]
