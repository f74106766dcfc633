"""Sparse Jacobians and Hessians: found from the graph, computed by few products.

The pattern is read off the graph (graphdl.compiler.sparsity), products are chosen that find all of
its elements (graphdl.compiler.colouring), and one compiled function computes these products and
takes the elements from them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl import transforms
from graphdl.api import Compiled, trace
from graphdl.compiler.checkpoint import inlined
from graphdl.compiler.colouring import Plan, planned, planned_symmetric
from graphdl.compiler.rewrite import simplify
from graphdl.errors import ArgumentError, UnsupportedError
from graphdl.tracing import current_trace, locate
from graphdl.trees import flatten, leaf_names, leaf_type, leaves_of, unflatten
from graphdl.types import TensorType, spec

Function = Callable[..., Any]
_MODES = (None, "forward", "reverse")


class SparseDerivative:
    """A function that returns a derivative as a `scipy.sparse.csr_array`.

    Made by `gd.sparse_jacobian` and `gd.sparse_hessian`. `plan(*args)` says how it is computed for
    arguments like these.
    """

    def __init__(self, name: str, f: Function, argnums: int, chosen: Callable[[Any], Plan]) -> None:
        functools.update_wrapper(self, f)
        self._name = name
        self._map = _LinearMap(f, argnums)
        self._chosen = chosen
        self._known: dict[Any, tuple[Plan, Compiled]] = {}

    def __call__(self, *args: Any) -> Any:
        if current_trace() is not None:
            raise locate(
                UnsupportedError(
                    f"gd.{self._name} returns a scipy.sparse matrix, which a trace cannot hold; "
                    f"call it outside of the traced function"
                )
            )
        plan, values = self._prepared(args)
        result = plan.pattern.copy()
        result.data = values(*args)
        return result

    def plan(self, *args: Any) -> Plan:
        """The pattern and the products for arguments like these: arrays, or `gd.spec(shape)`.

        >>> import numpy as np, graphdl as gd
        >>> gd.sparse_jacobian(lambda x: x[1:] - x[:-1]).plan(gd.spec(1000))
        <1998 elements of 999 x 1000 by 2 forward and 0 reverse products>
        """
        return self._prepared(args)[0]

    def _prepared(self, args: tuple[Any, ...]) -> tuple[Plan, Compiled]:
        leaves, tree = flatten(args)
        names = leaf_names(self._map.f, args, {})
        types = [leaf_type(leaf, name) for leaf, name in zip(leaves, names, strict=True)]
        key = (tree, tuple(types))
        if key not in self._known:
            likes = [
                leaf if weak else type for leaf, (type, weak) in zip(leaves, types, strict=True)
            ]
            plan = self._chosen(self._map.pattern(unflatten(tree, likes)))
            self._known[key] = plan, Compiled(functools.partial(self._map.elements, plan))
        return self._known[key]


class _LinearMap:
    """The derivative of a function as a map of flat arrays, forward and back."""

    def __init__(self, f: Function, argnums: int) -> None:
        self.f = f
        self.argnums = argnums

    def pattern(self, args: tuple[Any, ...]) -> Any:
        """The elements of the derivative that may be other than zero, as a sparse matrix."""
        # scipy.sparse takes 0.1 s to import, which only those pay who ask for a sparse derivative
        from graphdl.compiler.sparsity import dependence

        count = sum(type.size for type in self._types(args))
        graph = simplify(inlined(trace(self._pushed, args, spec(count))))
        return dependence(graph, len(graph.inputs) - 1)

    def elements(self, plan: Plan, *args: Any) -> Any:
        """The elements of the pattern, from the products that the plan asks for."""
        found = []
        for count, colours, product in (
            (plan.forward, plan.columns, self._pushed),
            (plan.reverse, plan.rows, self._pulled),
        ):
            if count:
                one = functools.partial(_of_colour, product, args, colours)
                found.append(np.ravel(transforms.vmap(one)(np.arange(count))))
        if not found:
            return np.zeros(0)
        return np.concatenate(found)[plan.places]

    def _position(self, args: tuple[Any, ...]) -> int:
        return transforms.positions_of(self.argnums, len(args), self.f)[0]

    def _types(self, args: tuple[Any, ...]) -> list[TensorType]:
        return [leaf_type(leaf, "")[0] for leaf in leaves_of(args[self._position(args)])]

    def _partial(self, args: tuple[Any, ...]) -> tuple[Function, Any]:
        """The function of the one argument, and that argument."""
        i = self._position(args)

        @functools.wraps(self.f)
        def at(x: Any) -> Any:
            return self.f(*args[:i], x, *args[i + 1 :])

        return at, args[i]

    def _pushed(self, args: tuple[Any, ...], direction: Any) -> Any:
        """The derivative along a direction."""
        at, x = self._partial(args)
        _, pushed = transforms.jvp(at, (x,), (_nested(direction, x),))
        return _flat(pushed)

    def _pulled(self, args: tuple[Any, ...], cotangent: Any) -> Any:
        """The derivative of a weighted sum of the results."""
        at, x = self._partial(args)
        value, pull_back = transforms.vjp(at, x)
        return _flat(pull_back(_nested(cotangent, value))[0])


def _of_colour(product: Function, args: tuple[Any, ...], colours: Any, colour: Any) -> Any:
    """The product with the sum of the unit vectors of one colour."""
    return product(args, np.equal(colours, colour).astype(np.float64))


def _flat(tree: Any) -> Any:
    parts = [np.ravel(leaf) for leaf in leaves_of(tree)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _nested(flat: Any, like: Any) -> Any:
    """The pieces of a flat array as a tree like another one."""
    leaves, tree = flatten(like)
    pieces, start = [], 0
    for leaf in leaves:
        shape = np.shape(leaf)
        size = int(np.prod(shape))
        pieces.append(np.reshape(flat[start : start + size], shape))
        start += size
    return unflatten(tree, pieces)


def sparse_jacobian(f: Function, argnums: int = 0, mode: str | None = None) -> SparseDerivative:
    """The Jacobian of f as a sparse matrix, by as many products as it takes colours.

    Which derivatives can be other than zero is found from the graph of f: indexing, reductions,
    products with constants, loops and branches are followed; what has no rule of its own counts as
    full. Then columns that share no row are found by one product of the Jacobian with a vector
    (forward mode), or rows that share no column by one from the left (reverse mode), or columns and
    the few longest rows, and so on: whatever takes the fewest. A tridiagonal Jacobian takes three
    products, of any size.

    Args:
        f: a function of arrays, or of trees of them, that returns an array or a tree of arrays.
        argnums: the argument to differentiate with respect to.
        mode: "forward" or "reverse", to have products of one kind only.

    Returns:
        A function of the arguments of f that returns a `scipy.sparse.csr_array`: a row for each
        element of the results, flattened and one behind the other, a column for each element of the
        argument. It holds every element of the pattern, zeros too. For each combination of shapes
        the pattern is found and the products are compiled at the first call; `plan(*args)` of the
        function shows them.

    Raises:
        GradientError: the argument is no float, or does not exist.
        ArgumentError: another mode.
        UnsupportedError: called in a traced function, which can hold no sparse matrix.

    >>> import numpy as np, graphdl as gd
    >>> jacobian = gd.sparse_jacobian(lambda x: x[1:] ** 2 - x[:-1])(np.array([1.0, 2.0, 3.0]))
    >>> jacobian.toarray()
    array([[-1.,  4.,  0.],
           [ 0., -1.,  6.]])
    """
    if mode not in _MODES:
        raise ArgumentError(f"sparse_jacobian: mode={mode!r}; write 'forward', 'reverse' or None")
    return SparseDerivative("sparse_jacobian", f, argnums, functools.partial(planned, mode=mode))


def sparse_hessian(f: Function, argnums: int = 0) -> SparseDerivative:
    """The Hessian of a scalar function as a sparse matrix: see `sparse_jacobian`.

    Each product is one with the Hessian, forward over reverse. An element of a long row is found in
    the column of the same number.

    Args:
        f: a function of arrays that returns one float.
        argnums: the argument to differentiate with respect to, an array or a tree of them.

    Raises:
        GradientError: f returns something else than one float, or the argument is no float.
        UnsupportedError: called in a traced function, which can hold no sparse matrix.

    >>> import numpy as np, graphdl as gd
    >>> hessian = gd.sparse_hessian(lambda x: np.sum((x[1:] - x[:-1]) ** 4))
    >>> hessian(np.array([0.0, 1.0, 3.0])).toarray()
    array([[ 12., -12.,   0.],
           [-12.,  60., -48.],
           [  0., -48.,  48.]])
    """
    return SparseDerivative(
        "sparse_hessian", transforms.grad(f, argnums), argnums, planned_symmetric
    )


__all__: Sequence[str] = ["SparseDerivative", "sparse_hessian", "sparse_jacobian"]
