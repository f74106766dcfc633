"""What `for`, `while` and `if` become in a function that is compiled with loops="native".

graphdl.native_loops rewrites the source of such a function: the body of each loop and branch is a
function of the variables that it assigns, and the statement a call of a function here. Whether it
becomes a native loop or branch is decided when that runs. What only depends on Python values stays
Python: a condition that is no traced array, and a range of at most UNROLLED steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from msgspec import Struct

from graphdl.errors import ConcreteValueError, GraphError, ShapeError, UnsupportedError
from graphdl.tracing import TracedArray, broadcast_to, cast, current_trace, locate
from graphdl.transforms import loops
from graphdl.transforms.common import as_leaf, running
from graphdl.trees import flatten, leaves_of, unflatten
from graphdl.types import kind_of, result_type

#: A range of so many steps at most stays a Python loop: its steps become one piece of graph, in
#: which they are fused with each other.
UNROLLED = 8

Values = tuple[Any, ...]
Body = Callable[..., Values]


class Site(Struct, frozen=True):
    """A statement: what it is, where, and the variables that it assigns.

    `changed` are those whose elements only are assigned, `x[i] = v`: the array stays the same one.
    """

    what: str
    file: str
    line: int
    names: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"the `{self.what}` at {self.file}:{self.line}"


class UndefinedError(GraphError, UnboundLocalError):
    """A variable that only some of the ways through converted code have assigned."""


class Undefined:
    """A variable that has no value here; to use it is an error that says why."""

    __slots__ = ("_name", "_why")
    __array_priority__ = 2000.0

    def __init__(self, name: str, why: str) -> None:
        self._name, self._why = name, why

    def _raise(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise locate(UndefinedError(f"{self._name!r} has no value here: {self._why}"))

    __array__ = __array_ufunc__ = __bool__ = __float__ = __int__ = __index__ = __len__ = _raise
    __iter__ = __getitem__ = __setitem__ = __call__ = _raise

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._raise()


for _name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift", "divmod",
):  # fmt: skip
    setattr(Undefined, f"__{_name}__", Undefined._raise)
    setattr(Undefined, f"__r{_name}__", Undefined._raise)
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"):
    setattr(Undefined, f"__{_name}__", Undefined._raise)


def undefined(name: str) -> Undefined:
    return Undefined(name, "nothing has been assigned to it before")


def _is_traced(value: Any) -> bool:
    return isinstance(value, TracedArray) and current_trace() is not None


def _is_tree(value: Any) -> bool:
    """Whether a value is an array, a number, or a tree of them, which loops can carry."""
    if isinstance(value, Undefined):
        return False
    kinds = (TracedArray, np.ndarray, np.generic, bool, int, float)
    return all(isinstance(leaf, kinds) for leaf in leaves_of(value))


# --- conditions ---------------------------------------------------------------------------------


def both(x: Any, y: Callable[[], Any]) -> Any:
    """`x and y`."""
    return np.logical_and(x, y()) if _is_traced(x) else x and y()


def either(x: Any, y: Callable[[], Any]) -> Any:
    """`x or y`."""
    return np.logical_or(x, y()) if _is_traced(x) else x or y()


def negated(x: Any) -> Any:
    """`not x`."""
    return np.logical_not(x) if _is_traced(x) else not x


def chosen(site: Site, test: Any, x: Callable[[], Any], y: Callable[[], Any]) -> Any:
    """`x if test else y`."""
    if not _is_traced(test):
        return x() if test else y()
    with _explained(site):
        return loops.choose("cond", _one_bool(test), (y, x), (), running(), _agreed_tree)


def decided(site: Site, reason: str, test: Any) -> Any:
    """A condition of a statement that cannot be converted."""
    if _is_traced(test):
        raise _unconverted(site, reason)
    return test


def steps(site: Site, reason: str, *bounds: Any) -> Any:
    """The range of a loop that cannot be converted."""
    if any(_is_traced(bound) for bound in bounds):
        raise _unconverted(site, reason)
    return range(*bounds)


def _unconverted(site: Site, reason: str) -> GraphError:
    return locate(
        ConcreteValueError(
            f"{site} depends on the value of a traced array, and loops='native' cannot convert it: "
            f"{reason}"
        )
    )


def _one_bool(test: TracedArray) -> Any:
    if test.shape != ():
        raise locate(
            ShapeError(f"a condition is {test.type}, not one value; write np.all or np.any")
        )
    return test if test.dtype == np.bool_ else np.not_equal(test, 0)


class _explained:
    """Adds to an error of a loop or branch which statement it is of."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        text = str(error)
        unbound = isinstance(error, UnboundLocalError) or "free variable" in text
        if isinstance(error, NameError) and unbound and not isinstance(error, GraphError):
            raise locate(
                UndefinedError(
                    f"{error}, in {self.site}; a variable that keeps its value from one step of a "
                    f"loop to the next needs one before the loop"
                )
            ) from error
        if isinstance(error, GraphError) and not getattr(error, "explained", False):
            error.explained = True  # type: ignore[attr-defined]
            names = ", ".join(name for name in self.site.names if not name.startswith("_"))
            locate(error)
            error.args = (f"{error.args[0]}\n  in {self.site}, which carries {names}",)


# --- variables ----------------------------------------------------------------------------------


class _Carried:
    """The variables of a loop: those that are carried, and those that stay what they are."""

    def __init__(self, site: Site, values: Values) -> None:
        self.site = site
        self.values = values
        self.carries = [_is_tree(value) for value in values]

    def carry(self, values: Values) -> list[Any]:
        return [value for value, carried in zip(values, self.carries, strict=True) if carried]

    def merged(self, carry: Sequence[Any]) -> Values:
        """The variables at the beginning of a step."""
        left = iter(carry)
        return tuple(
            next(left) if carried else value
            for value, carried in zip(self.values, self.carries, strict=True)
        )

    def after(self, values: Values) -> list[Any]:
        """What is carried on after a step."""
        for name, old, new, carried in zip(
            self.site.names, self.values, values, self.carries, strict=True
        ):
            if not carried and new is not old and not isinstance(old, Undefined):
                raise locate(
                    UnsupportedError(
                        f"{name!r} is {old!r:.40} before a step and {new!r:.40} after it; a native "
                        f"loop carries arrays and numbers only"
                    )
                )
            if isinstance(old, list) and isinstance(new, list) and len(old) != len(new):
                raise locate(
                    UnsupportedError(
                        f"the list {name!r} has {len(old)} items before a step and {len(new)} "
                        f"after it, but a native loop carries arrays of fixed shapes. Make an "
                        f"array of the largest size before the loop, {name} = np.zeros(n), and "
                        f"write {name}[i] = value instead of {name}.append(value)"
                    )
                )
        return self.carry(values)

    def finished(self, carry: Sequence[Any]) -> Values:
        """The variables after the loop."""
        found = []
        why = "it is assigned in a loop that may take no step; give it a value before the loop"
        for name, old, new in zip(self.site.names, self.values, self.merged(carry), strict=True):
            if isinstance(new, Undefined):
                new = Undefined(name, why)
            found.append(_placed(old, new) if name in self.site.changed else new)
        return tuple(found)


def _placed(old: Any, new: Any) -> Any:
    """New elements in the arrays that were there before, so that views of them see them."""
    before, tree = flatten(old)
    after, new_tree = flatten(new)
    if tree != new_tree:
        return new
    return unflatten(tree, [_assigned(x, y) for x, y in zip(before, after, strict=True)])


def _assigned(old: Any, new: Any) -> Any:
    traced = isinstance(old, TracedArray) and isinstance(new, TracedArray)
    if not traced or not old.is_array or old.type != new.type:
        return new
    old.assign(new)
    return old


def _first_values(site: Site, body: Body, values: Values) -> Values:
    """Zeros in the place of variables that the loop assigns first, which take at least a step."""
    if not any(isinstance(value, Undefined) for value in values):
        return values
    carried = _Carried(site, values)
    with running().inside("for"):
        inputs = _copied(carried.carry(values))
        after = body(0, *carried.merged(inputs))
    return tuple(
        _zeros(new) if isinstance(old, Undefined) and _is_tree(new) else old
        for old, new in zip(values, after, strict=True)
    )


def _copied(tree: Any) -> Any:
    """The same values in arrays of their own."""
    leaves, spec = flatten(tree)
    return unflatten(spec, [x.fresh() if isinstance(x, TracedArray) else x for x in leaves])


def _zeros(tree: Any) -> Any:
    leaves, spec = flatten(tree)
    return unflatten(
        spec, [np.zeros(np.shape(x), x.dtype) if hasattr(x, "dtype") else 0 * x for x in leaves]
    )


# --- loops --------------------------------------------------------------------------------------


def for_range(site: Site, body: Body, bounds: tuple[Any, ...], values: Values) -> Values:
    """`for i in range(*bounds)`: body(i, *values) -> values."""
    if current_trace() is None or not any(map(_is_traced, bounds)):
        numbers = range(*bounds)
        if current_trace() is None or len(numbers) <= UNROLLED:
            for i in numbers:
                values = body(i, *values)
            return values
    with _explained(site):
        start, step, count = _counted(bounds)
        if not _is_traced(count):
            values = _first_values(site, body, values)
        carried = _Carried(site, values)

        def one(k: Any, carry: Any) -> Any:
            return carried.after(body(_index(start, step, k), *carried.merged(carry)))

        functools.update_wrapper(one, body)
        return carried.finished(loops.fori_loop(0, count, one, carried.carry(values)))


def for_range_until(
    site: Site, body: Body, bounds: tuple[Any, ...], values: Values, flag: int
) -> Values:
    """The same with a `break`, which sets variable number `flag`."""
    start, step, count = _counted(bounds)

    def test(k: Any, *values: Any) -> Any:
        return both(np.less(k, count), lambda: negated(values[flag]))

    def one(k: Any, *values: Any) -> Values:
        return (k + 1, *body(_index(start, step, k), *values))

    whole = Site(site.what, site.file, site.line, ("_step", *site.names), site.changed)
    return while_loop(whole, test, one, (0, *values))[1:]


def _counted(bounds: tuple[Any, ...]) -> tuple[Any, int, Any]:
    """Start, step, and number of steps of a range."""
    start, stop, step = {1: (0, *bounds, 1), 2: (*bounds, 1), 3: bounds}[len(bounds)]
    if _is_traced(step):
        raise locate(UnsupportedError("the step of a range is traced; it has to be a number"))
    if not _is_traced(start) and not _is_traced(stop):
        return start, step, len(range(start, stop, step))
    if step == 0:
        raise ValueError("range() arg 3 must not be zero")
    distance = stop - start + (step - 1 if step > 0 else step + 1)
    return start, step, np.maximum(distance // step, 0)


def _index(start: Any, step: int, k: Any) -> Any:
    """The value of the loop's variable: a number, to which arrays do not yield."""
    if not isinstance(k, TracedArray):
        return start + step * k
    number: Any = k.fresh()
    number.weak = True
    from_zero = not _is_traced(start) and start == 0
    return number if from_zero and step == 1 else start + step * number


def last(*bounds: Any) -> Any:
    """The value of a loop's variable after `for i in range(*bounds)`."""
    start, step, count = _counted(bounds)
    if not _is_traced(count) and count == 0:
        return Undefined("the variable of a loop", "the loop has taken no step")
    return start + step * (count - 1)


def while_loop(site: Site, test: Callable[..., Any], body: Body, values: Values) -> Values:
    """`while test(*values)`: body(*values) -> values. Native as soon as the test is traced."""
    while True:
        going = test(*values)
        if _is_traced(going):
            break
        if not going:
            return values
        values = body(*values)
    with _explained(site):
        carried = _Carried(site, values)

        def condition(carry: Any) -> Any:
            return _one_bool(as_leaf(test(*carried.merged(carry)), running(), "a condition"))

        def one(carry: Any) -> Any:
            return carried.after(body(*carried.merged(carry)))

        functools.update_wrapper(one, body)
        return carried.finished(loops.while_loop(condition, one, carried.carry(values)))


# --- branches -----------------------------------------------------------------------------------


def branch(site: Site, test: Any, true: Body, false: Body, values: Values) -> Values:
    """`if test`: true(*values) -> values, else false(*values)."""
    if not _is_traced(test):
        return (true if test else false)(*values)
    with _explained(site):
        carried = _Carried(site, values)
        statics: dict[int, Any] = {}

        def agreed(results: list[Any]) -> list[Any]:
            """The branches' results where both have arrays; the rest must be the same, or is
            undefined."""
            kept: list[list[Any]] = [[], []]
            for number, (name, x, y) in enumerate(zip(site.names, *results, strict=True)):
                if _is_tree(x) and _is_tree(y):
                    for part, value in zip(kept, _agreed_tree([x, y]), strict=True):
                        part.append(value)
                elif x is y:
                    statics[number] = x
                elif isinstance(x, Undefined) or isinstance(y, Undefined):
                    why = f"{site} assigns it in one branch only"
                    statics[number] = Undefined(name, why)
                else:
                    raise locate(
                        UnsupportedError(
                            f"{name!r} is {y!r:.40} or {x!r:.40}; branches give arrays and numbers"
                        )
                    )
            return kept

        branches = [
            functools.wraps(f)(lambda *carry, f=f: f(*carried.merged(carry))) for f in (false, true)
        ]
        found = iter(
            loops.choose(
                "cond", _one_bool(test), branches, carried.carry(values), running(), agreed
            )
        )
        after = [statics[i] if i in statics else next(found) for i in range(len(values))]
        return tuple(
            _placed(old, new) if name in site.changed else new
            for name, old, new in zip(site.names, values, after, strict=True)
        )


def returned(site: Site, test: Any, true: Body, false: Body, values: Values) -> Any:
    """An `if` of which both branches return."""
    if not _is_traced(test):
        return (true if test else false)(*values)
    with _explained(site):
        carried = _Carried(site, values)
        branches = [
            functools.wraps(f)(lambda *carry, f=f: f(*carried.merged(carry))) for f in (false, true)
        ]
        return loops.choose(
            "cond", _one_bool(test), branches, carried.carry(values), running(), _agreed_tree
        )


def _agreed_tree(results: list[Any]) -> list[Any]:
    """Two trees with leaves of the same types: a number yields to the array in its place."""
    (first, tree), (second, other) = map(flatten, results)
    if tree != other:
        return results  # which is refused, with both trees in the message
    trace = running()
    pairs = []
    for x, y in zip(first, second, strict=True):
        a, b = (as_leaf(value, trace, "a result of a branch") for value in (x, y))
        a.weak, b.weak = (_is_weak(value) for value in (x, y))
        dtype = result_type(*_dtypes(a, b))
        shape = a.shape if b.shape == () else b.shape
        pairs.append(
            [
                broadcast_to(cast(v, dtype), shape) if v.shape == () else cast(v, dtype)
                for v in (a, b)
            ]
        )
    return [unflatten(tree, [pair[i] for pair in pairs]) for i in range(2)]


def _is_weak(value: Any) -> bool:
    return type(value) in (bool, int, float) or bool(getattr(value, "weak", False))


def _dtypes(a: TracedArray, b: TracedArray) -> list[Any]:
    """What two values bring to promotion."""
    python = {"b": False, "i": 0, "f": 0.0}
    if a.weak and b.weak:
        return [a.dtype, b.dtype]
    return [python[kind_of(v.dtype)] if v.weak else v.dtype for v in (a, b)]
