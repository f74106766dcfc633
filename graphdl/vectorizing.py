"""np.vectorize of traced arrays: the function is traced once, for one element of each.

NumPy calls the function for each element. Of traced arrays that is gd.vmap of it over the elements:
same values, no Python while the program runs, gradients. An `if` on an element is refused as in any
traced function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ConcreteValueError, DtypeError, ShapeError
from graphdl.tracing import (
    HANDLERS,
    TracedArray,
    as_traced,
    as_traced_results,
    broadcast_shapes,
    broadcast_to,
    cast,
    current_trace,
    locate,
)
from graphdl.transforms import vmap
from graphdl.trees import flatten, unflatten
from graphdl.types import Shape


class vectorize:
    """np.vectorize, with its arguments; arrays that are being traced it takes as a whole.

    >>> import numpy as np, graphdl as gd
    >>> def clipped(x, low):
    ...     return np.where(x < low, low, x)
    >>> gd.compile(lambda x: np.vectorize(clipped)(x, 0.5))(np.array([0.0, 1.0]))
    array([0.5, 1. ])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._plain = np.vectorize(*args, **kwargs)

    @classmethod
    def of(cls, plain: np.vectorize) -> vectorize:
        """What stands for one that was made outside of the trace."""
        made = cls.__new__(cls)
        made._plain = plain
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        plain: Any = self._plain
        if trace is None:
            return plain(*args, **kwargs)
        if not callable(plain.pyfunc):  # a decorator with arguments: this is the function
            return vectorize.of(plain(*args, **kwargs))
        if not any(_is_unknown(x) for x in flatten((args, kwargs))[0]):
            try:
                return as_traced_results(plain(*args, **kwargs), trace)
            except ConcreteValueError:  # the function itself reaches traced values
                pass
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        mapped = [key for key in given if key not in plain.excluded]
        values = [_as_array(given[key], trace) for key in mapped]
        inner = _core_dimensions(plain.signature, len(values))
        loop = broadcast_shapes(
            "np.vectorize", [x.shape[: x.ndim - n] for x, n in zip(values, inner, strict=True)]
        )
        flat = [_flat(x, n, loop) for x, n in zip(values, inner, strict=True)]
        function = plain.pyfunc

        def one(*items: Any) -> Any:
            filled = {**given, **dict(zip(mapped, items, strict=True))}
            positional = [filled.pop(i) for i in range(len(args))]
            return function(*positional, **filled)

        leaves, tree = flatten(vmap(one)(*flat) if loop else one(*values))
        made = [self._placed(as_traced(leaf, trace), loop, i) for i, leaf in enumerate(leaves)]
        return unflatten(tree, made)

    def _placed(self, result: Any, loop: Shape, number: int) -> Any:
        """A result for all elements, in their shape, and in the dtype that `otypes` says."""
        rest = result.shape[1:] if loop else result.shape
        if rest and self._plain.signature is None:
            raise locate(
                ShapeError(
                    f"np.vectorize: {self._plain.pyfunc.__name__} returned an array of shape "
                    f'{rest} for one element; write np.vectorize(f, signature="()->(n)")'
                )
            )
        made = result.reshape(loop + rest)
        otypes = self._plain.otypes
        return made if otypes is None else cast(made, np.dtype(otypes[number]))


def _is_unknown(x: Any) -> bool:
    return isinstance(x, TracedArray) and x.known() is None


def _as_array(x: Any, trace: Any) -> TracedArray:
    if isinstance(x, (list, tuple)):
        x = HANDLERS[np.array](x)
    elif not isinstance(x, TracedArray) and np.asarray(x).dtype == object:
        raise locate(
            DtypeError(
                f"np.vectorize: cannot trace the argument {x!r:.60}; name it in excluded={{...}}"
            )
        )
    return as_traced(x, trace)


def _core_dimensions(signature: str | None, count: int) -> list[int]:
    """How many axes of each argument belong to one call."""
    if signature is None:
        return [0] * count
    given = re.findall(r"\(([^)]*)\)", signature.partition("->")[0])
    return [len([name for name in text.split(",") if name.strip()]) for text in given]


def _flat(x: TracedArray, core: int, loop: Shape) -> Any:
    """The elements in a row, each with its own axes."""
    own = x.shape[x.ndim - core :]
    return broadcast_to(x, loop + own).reshape((math.prod(loop), *own))


#: The classes whose objects something else stands for, and what makes that of them.
INSTANCES: dict[type, Callable[[Any], Any]] = {np.vectorize: vectorize.of}

__all__ = ["INSTANCES", "vectorize"]
