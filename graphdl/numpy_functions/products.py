"""Matrix products, dot, tensordot and einsum: labelled axes, lowered to pairwise contractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import ShapeError
from graphdl.numpy_functions.arguments import (
    BOOL,
    INDEX,
    axes_of,
    integer,
    lift,
    promote,
    require,
    reshaped,
    transposed,
)
from graphdl.numpy_functions.manipulation import concatenate, expand_dims, moveaxis
from graphdl.numpy_functions.selection import diagonal_of_last
from graphdl.ops import complex_numbers, contraction, pointwise, reduction
from graphdl.tracing import (
    TracedArray,
    broadcast_to,
    call_ufunc,
    cast,
    implements,
)

Labels = tuple[int, ...]


def contracted(a: TracedArray, la: Labels, b: TracedArray, lb: Labels, lo: Labels) -> Any:
    """The sum of a * b over the labels that `lo` lacks; a size of 1 broadcasts.

    Labels may be in one operand only; each is in an operand at most once.
    """
    if a.dtype == BOOL:  # NumPy's products of booleans: any of ands
        return cast(contracted(cast(a, INDEX), la, cast(b, INDEX), lb, lo), BOOL)
    sizes = dict.fromkeys((*la, *lb), 1)
    for x, labels in ((a, la), (b, lb)):
        for label, size in zip(labels, x.shape, strict=True):
            sizes[label] = size if sizes[label] == 1 else sizes[label]
    a, la = _prepared(a, la, {*lb, *lo}, sizes)
    b, lb = _prepared(b, lb, {*la, *lo}, sizes)
    # an axis of 1 that was dropped on both sides is put back at the end
    left = tuple(label for label in lo if label in la or label in lb)
    summed = (set(la) | set(lb)) - set(left)
    if summed:
        result = contraction.product(a, b, la, lb, left)
    else:
        result = call_ufunc(np.multiply, _placed(a, la, left), _placed(b, lb, left))
    return broadcast_to(
        reshaped(result, tuple(sizes[label] if label in left else 1 for label in lo)),
        tuple(sizes[label] for label in lo),
    )


def _prepared(
    x: TracedArray, labels: Labels, needed: set[int], sizes: dict[int, int]
) -> tuple[TracedArray, Labels]:
    """x without the axes that broadcast, and summed over those that nobody else needs."""
    ones = [i for i, label in enumerate(labels) if x.shape[i] == 1 != sizes[label]]
    if ones:
        x = reshaped(x, tuple(size for i, size in enumerate(x.shape) if i not in ones))
        labels = tuple(label for i, label in enumerate(labels) if i not in ones)
    alone = tuple(i for i, label in enumerate(labels) if label not in needed)
    if alone:
        x = reduction.sum_(x, axes=alone)
        labels = tuple(label for label in labels if label in needed)
    return x, labels


def _placed(x: TracedArray, labels: Labels, order: Labels) -> Any:
    """x with its axes in `order`, of size 1 where it has none."""
    here = [label for label in order if label in labels]
    x = transposed(x, [labels.index(label) for label in here])
    sizes = dict(zip(here, x.shape, strict=True))
    return reshaped(x, tuple(sizes.get(label, 1) for label in order))


def _operands(ufunc: np.ufunc, *values: Any) -> tuple[TracedArray, ...]:
    """The operands of a product, cast to the dtype that NumPy's loop has."""
    lifted = lift(*values)
    dtype = pointwise.resolve(ufunc, tuple(x.dtype for x in lifted))[0]
    return tuple(cast(x, dtype) for x in lifted)


def _batched(
    ufunc: np.ufunc, core_a: str, core_b: str, core_out: str, *, conjugated: bool = False
) -> Callable[..., Any]:
    """A product over the last axes of stacks of arrays: np.vecdot, np.matvec, np.vecmat.

    conjugated: of complex operands, the first is conjugated.
    """
    number = {letter: -1 - i for i, letter in enumerate("mnk")}

    def implementation(x1: Any, x2: Any, /, dtype: Any = None) -> Any:
        a, b = _operands(ufunc, x1, x2)
        a = complex_numbers.conjugate(a) if conjugated and a.type.is_complex else a
        for x, core in ((a, core_a), (b, core_b)):
            require(
                x.ndim >= len(core),
                f"np.{ufunc.__name__}: needs at least {len(core)} axes, not shape {x.shape}",
            )
        ra, rb = a.ndim - len(core_a), b.ndim - len(core_b)
        rank = max(ra, rb)
        batch = tuple(range(rank))
        la = (*batch[rank - ra :], *(number[c] for c in core_a))
        lb = (*batch[rank - rb :], *(number[c] for c in core_b))
        lo = (*batch, *(number[c] for c in core_out))
        _check_sizes(ufunc.__name__, a, la, b, lb, broadcast=set(batch))
        result = contracted(a, la, b, lb, lo)
        return result if dtype is None else cast(result, np.dtype(dtype))

    return implementation


def _check_sizes(
    name: str, a: TracedArray, la: Labels, b: TracedArray, lb: Labels, broadcast: set[int]
) -> None:
    for label in set(la) & set(lb):
        m, n = a.shape[la.index(label)], b.shape[lb.index(label)]
        if m != n and not (label in broadcast and 1 in (m, n)):
            raise ShapeError(
                f"np.{name}: shapes {a.shape} and {b.shape} do not fit: "
                f"axis {la.index(label)} of size {m} meets axis {lb.index(label)} of size {n}"
            )


_matrix_matrix = _batched(np.matmul, "mk", "kn", "mn")
_matrix_vector = _batched(np.matmul, "mk", "k", "m")
_vector_matrix = _batched(np.matmul, "k", "kn", "n")
_vector_vector = _batched(np.matmul, "k", "k", "")


@implements(np.matmul)
def matmul(x1: Any, x2: Any, /, dtype: Any = None) -> Any:
    a, b = lift(x1, x2)
    if not a.ndim or not b.ndim:
        raise ShapeError(
            f"np.matmul: operands of shapes {a.shape} and {b.shape}; a scalar multiplies with `*`"
        )
    if a.ndim == 1:
        return (_vector_vector if b.ndim == 1 else _vector_matrix)(a, b, dtype)
    return (_matrix_vector if b.ndim == 1 else _matrix_matrix)(a, b, dtype)


implements(np.vecdot)(_batched(np.vecdot, "k", "k", "", conjugated=True))
if hasattr(np, "matvec"):  # NumPy 2.2
    implements(np.matvec)(_batched(np.matvec, "mk", "k", "m"))
    implements(np.vecmat)(_batched(np.vecmat, "k", "kn", "n", conjugated=True))


def _pair(a: Any, b: Any) -> tuple[TracedArray, TracedArray]:
    """Two operands in their common dtype."""
    x, y = lift(a, b)
    dtype = promote(x, y)
    return cast(x, dtype), cast(y, dtype)


@implements(np.dot)
def dot(a: Any, b: Any, out: None = None) -> Any:
    x, y = _pair(a, b)
    if not x.ndim or not y.ndim:
        return call_ufunc(np.multiply, x, y)
    return _tensordot(x, y, (x.ndim - 1,), (max(y.ndim - 2, 0),))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    x, y = _pair(a, b)
    if not x.ndim or not y.ndim:
        return call_ufunc(np.multiply, x, y)
    return _tensordot(x, y, (x.ndim - 1,), (y.ndim - 1,))


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    x, y = _pair(a, b)
    left = x.conj()
    return _tensordot(reshaped(left, (x.size,)), reshaped(y, (y.size,)), (0,), (0,))


@implements(np.outer)
def outer(a: Any, b: Any, out: None = None) -> Any:
    x, y = lift(a, b)
    return call_ufunc(np.multiply, reshaped(x, (x.size, 1)), reshaped(y, (y.size,)))


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = _pair(a, b)
    if np.ndim(axes) == 0 and not isinstance(axes, (tuple, list)):
        count = integer(axes, "axes")
        require(0 <= count <= min(x.ndim, y.ndim), f"axes={count} of {x.shape} and {y.shape}")
        return _tensordot(x, y, tuple(range(x.ndim - count, x.ndim)), tuple(range(count)))
    of_x, of_y = axes
    return _tensordot(x, y, axes_of(of_x, x.shape), axes_of(of_y, y.shape))


def _tensordot(a: TracedArray, b: TracedArray, of_a: Labels, of_b: Labels) -> Any:
    """Sum over axes of_a of a and of_b of b, which pair up."""
    paired = len(of_a) == len(of_b)
    if not paired or any(a.shape[i] != b.shape[j] for i, j in zip(of_a, of_b, strict=True)):
        raise ShapeError(
            f"axes {of_a} of shape {a.shape} and axes {of_b} of shape {b.shape} do not fit"
        )
    la = list(range(a.ndim))
    lb = [a.ndim + i for i in range(b.ndim)]
    for i, j in zip(of_a, of_b, strict=True):
        lb[j] = la[i]
    kept = [label for i, label in enumerate(la) if i not in of_a]
    kept += [label for j, label in enumerate(lb) if j not in of_b]
    return contracted(a, tuple(la), b, tuple(lb), tuple(kept))


# --- einsum -------------------------------------------------------------------------------------


def _explicit(operands: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The subscripts as a string, and the arrays, of either way to call einsum."""
    if isinstance(operands[0], str):
        return operands[0].replace(" ", ""), operands[1:]
    letters = [*map(chr, range(ord("a"), ord("z") + 1)), *map(chr, range(ord("A"), ord("Z") + 1))]

    def text(labels: Any) -> str:
        return "".join("..." if label is Ellipsis else letters[label] for label in labels)

    pairs, rest = operands[: len(operands) // 2 * 2], operands[len(operands) // 2 * 2 :]
    subscripts = ",".join(text(labels) for labels in pairs[1::2])
    return subscripts + (f"->{text(rest[0])}" if rest else ""), pairs[::2]


def _numbered(term: str, ndim: int, subscripts: str) -> Labels:
    """The labels of one operand: letters by their code, axes of the ellipsis below zero.

    The last axis of an ellipsis is -1, so that ellipses align as in broadcasting.
    """
    before, dots, after = term.partition("...")
    letters = before + after
    if not all(letter.isalpha() for letter in letters):
        raise ShapeError(f"subscripts {subscripts!r}: {term!r} is not made of letters and '...'")
    hidden = ndim - len(letters)
    if hidden < 0 or (hidden and not dots):
        raise ShapeError(
            f"subscripts {subscripts!r}: {term!r} names {len(letters)} axes, the operand has {ndim}"
        )
    return (*map(ord, before), *range(-hidden, 0), *map(ord, after))


def _output(given: str | None, terms: Sequence[Labels], subscripts: str) -> Labels:
    """The labels of the result; without `->`: the ellipsis, then what is named once, sorted."""
    every = [label for term in terms for label in term]
    hidden = tuple(sorted({label for label in every if label < 0}))
    if given is None:
        once = sorted(label for label in set(every) if label > 0 and every.count(label) == 1)
        return (*hidden, *once)
    before, dots, after = given.partition("...")
    labels = (*map(ord, before), *(hidden if dots else ()), *map(ord, after))
    if len(set(labels)) != len(labels) or not set(labels) <= set(every):
        raise ShapeError(
            f"subscripts {subscripts!r}: the result {given!r} repeats a label, "
            f"or names one that no operand has"
        )
    if hidden and not dots:
        raise ShapeError(f"subscripts {subscripts!r}: the result lacks the axes of '...'")
    return labels


def _merged(x: TracedArray, labels: Labels) -> tuple[TracedArray, Labels]:
    """x with axes of the same label merged into their diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            rest = [axis for axis in range(x.ndim) if axis not in (i, j)]
            x = diagonal_of_last(transposed(x, (*rest, i, j)))
            labels = (*(labels[axis] for axis in rest), label)
    return x, labels


@implements(np.einsum)
def einsum(
    *operands: Any,
    out: None = None,
    optimize: Any = True,
    dtype: Any = None,
    order: str = "K",
    casting: str = "safe",
) -> Any:
    subscripts, arrays = _explicit(operands)
    left, arrow, right = subscripts.partition("->")
    terms = left.split(",")
    values = lift(*arrays)
    if len(terms) != len(values):
        raise ShapeError(
            f"subscripts {subscripts!r} are for {len(terms)} operands, not {len(values)}"
        )
    common = promote(*values) if dtype is None else np.dtype(dtype)
    labels = [_numbered(t, x.ndim, subscripts) for t, x in zip(terms, values, strict=True)]
    result = _output(right if arrow else None, labels, subscripts)
    _check_labels(labels, values, subscripts)
    parts = [_merged(cast(x, common), named) for x, named in zip(values, labels, strict=True)]
    for pair in _path(parts, result):
        chosen = [parts.pop(i) for i in sorted(pair, reverse=True)][::-1]
        parts.append(_step(chosen, {*result, *(label for _, ls in parts for label in ls)}, result))
    ((x, named),) = parts
    alone = tuple(i for i, label in enumerate(named) if label not in result)
    if alone:
        x = reduction.any_(x, axes=alone) if x.dtype == BOOL else reduction.sum_(x, axes=alone)
        named = tuple(label for label in named if label in result)
    return transposed(x, [named.index(label) for label in result])


@implements(np.einsum_path)
def einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: bool = False) -> Any:
    """A question about shapes, which NumPy answers."""

    def stand_in(operand: Any) -> Any:
        if not isinstance(operand, TracedArray):
            return operand
        return np.broadcast_to(np.zeros((), operand.dtype), operand.shape)

    return np.einsum_path(*map(stand_in, operands), optimize=optimize)


def _check_labels(labels: Sequence[Labels], values: Sequence[TracedArray], subscripts: str) -> None:
    sizes: dict[int, int] = {}
    for named, x in zip(labels, values, strict=True):
        for label, size in zip(named, x.shape, strict=True):
            if sizes.setdefault(label, size) == 1:
                sizes[label] = size
            repeated = named.count(label) > 1
            if size != sizes[label] and (size != 1 or repeated):
                what = f"label {chr(label)!r}" if label > 0 else "an axis of '...'"
                shapes = ", ".join(str(value.shape) for value in values)
                raise ShapeError(
                    f"subscripts {subscripts!r}: {what} has sizes {sizes[label]} and {size} "
                    f"in shapes {shapes}"
                )


def _path(parts: Sequence[tuple[TracedArray, Labels]], result: Labels) -> list[tuple[int, ...]]:
    """Which operands to contract in which order."""
    if len(parts) <= 2:
        return [(0, 1)] if len(parts) == 2 else []
    import opt_einsum  # only for products of three and more: it costs start-up

    terms = [frozenset(labels) for _, labels in parts]
    sizes: dict[int, int] = {}
    for x, labels in parts:
        for label, size in zip(labels, x.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return list(opt_einsum.paths.auto(terms, frozenset(result), sizes))


def _step(
    operands: Sequence[tuple[TracedArray, Labels]], needed: set[int], result: Labels
) -> tuple[TracedArray, Labels]:
    """One product of a path: of two operands as a rule, of one if it stands alone."""
    (a, la), *others = operands
    for k, (b, lb) in enumerate(others):
        later = needed | {label for _, labels in others[k + 1 :] for label in labels}
        kept = {label for label in (*la, *lb) if label in later}
        # in the order of the result, where that is known: it saves a transpose at the end
        lo = tuple(sorted(kept, key=lambda label: _rank(label, result, (*la, *lb))))
        a, la = contracted(a, la, b, lb, lo), lo
    return a, la


def _rank(label: int, result: Labels, seen: Labels) -> int:
    return result.index(label) if label in result else len(result) + seen.index(label)


# --- what else multiplies -----------------------------------------------------------------------


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    x, y = lift(a, b)
    ndim = max(x.ndim, y.ndim)
    of_x = (1,) * (ndim - x.ndim) + x.shape
    of_y = (1,) * (ndim - y.ndim) + y.shape
    spread_x = reshaped(x, tuple(n for size in of_x for n in (size, 1)))
    spread_y = reshaped(y, tuple(n for size in of_y for n in (1, size)))
    blocks = call_ufunc(np.multiply, spread_x, spread_y)
    return reshaped(blocks, tuple(m * n for m, n in zip(of_x, of_y, strict=True)))


@implements(np.cross)
def cross(
    a: Any, b: Any, axisa: Any = -1, axisb: Any = -1, axisc: Any = -1, axis: Any = None
) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = lift(a, b)
    x, y = moveaxis(x, axisa, -1), moveaxis(y, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"takes vectors of 3 components, not shapes {x.shape} and {y.shape}")
    (x0, x1, x2), (y0, y1, y2) = ([v[..., i] for i in range(3)] for v in (x, y))
    parts = [x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0]
    return moveaxis(concatenate([expand_dims(part, -1) for part in parts], -1), -1, axisc)


implements(np.linalg.matmul)(matmul)
implements(np.linalg.cross)(lambda x1, x2, /, *, axis=-1: cross(x1, x2, axis=axis))
implements(np.linalg.tensordot)(lambda x1, x2, /, *, axes=2: tensordot(x1, x2, axes))
implements(np.linalg.vecdot)(lambda x1, x2, /, *, axis=-1: vecdot(x1, x2, axis))


def vecdot(x1: Any, x2: Any, axis: Any) -> Any:
    a, b = lift(x1, x2)
    return np.vecdot(moveaxis(a, axis, -1), moveaxis(b, axis, -1))


@implements(np.linalg.outer)
def linalg_outer(x1: Any, x2: Any, /) -> Any:
    a, b = lift(x1, x2)
    require(a.ndim == b.ndim == 1, f"takes two vectors, not shapes {a.shape} and {b.shape}")
    return outer(a, b)


@implements(np.linalg.trace)
def linalg_trace(x: Any, /, *, offset: Any = 0, dtype: Any = None) -> Any:
    return np.trace(x, offset, -2, -1, dtype)


@implements(np.linalg.diagonal)
def linalg_diagonal(x: Any, /, *, offset: Any = 0) -> Any:
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: None = None) -> Any:
    values = lift(*arrays)
    require(len(values) >= 2, "takes at least two arrays")
    operands: list[Any] = []
    for i, x in enumerate(values):
        ends = i in (0, len(values) - 1)
        require(x.ndim == 2 or (ends and x.ndim == 1), f"array {i} has shape {x.shape}")
        operands += [x, [i + 1] if x.ndim == 1 and i == 0 else [i, i + 1][: x.ndim]]
    first = [] if values[0].ndim == 1 else [0]
    last = [] if values[-1].ndim == 1 else [len(values)]
    return einsum(*operands, first + last)
