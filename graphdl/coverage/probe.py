"""What one name does on traced values, found out by calling it: no list says so."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
from msgspec import Struct

import graphdl as gd
import graphdl.numpy
from graphdl import linalg, special
from graphdl.coverage.examples import EXAMPLES, TEMPLATES, values
from graphdl.trees import leaves_of

#: How a result that has a gradient has come to it, or why there is none.
EXACT, STEP, NO_FLOAT, NONE = "yes", "0 everywhere", "no float result", "no"


class Namespace(Struct, frozen=True):
    """Names that users know, and where they get them for traced values."""

    title: str
    module: Any
    #: The module to call on traced values, where some functions do not dispatch.
    own: Any = None

    def names(self) -> list[str]:
        """The public functions."""
        return [
            name
            for name in dir(self.module)
            if not name.startswith("_")
            and callable(found := getattr(self.module, name))
            and not inspect.isclass(found)
            and not inspect.ismodule(found)
        ]

    def traced(self, name: str) -> Any:
        """The function to call on traced values: NumPy's or SciPy's own where it dispatches."""
        function = getattr(self.module, name)
        if self.own is None or isinstance(function, np.ufunc):
            return function
        return getattr(self.own, name, function)


NAMESPACES = (
    Namespace("numpy", np, graphdl.numpy),
    Namespace("numpy.linalg", np.linalg),
    Namespace("numpy.fft", np.fft),
    Namespace("scipy.special", scipy.special, special),
    Namespace("scipy.linalg", scipy.linalg, linalg),
)


class Finding(Struct, frozen=True):
    """What calling a name on traced values has shown."""

    name: str
    works: bool
    gradient: str
    why: str = ""
    #: The call, as text.
    example: str = ""
    #: The arguments of that call that the gradient is by, where it is not by all.
    by: tuple[str, ...] = ()
    #: Whether it works on complex numbers too; None where the original takes none.
    of_complex: bool | None = None


def probe(space: Namespace, name: str, order: int = 1) -> Finding:
    """Call a name with traced arguments, compare with the original, check its gradient.

    The call is that of EXAMPLES, or the first of TEMPLATES that the original takes. `order` is that
    of the gradients to compare with finite differences.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names, too
        return _probed(space, name, order)


def _probed(space: Namespace, name: str, order: int) -> Finding:
    given = EXAMPLES.get(f"{space.title}.{name}")
    for text in TEMPLATES.get(_arity(space, name), ()) if given is None else (given,):
        names = {key: value for key, value in values().items() if key in _words(text)}
        call = _call(text, tuple(names))
        original = getattr(space.module, name)
        try:
            expected = call(original, *names.values())
        except Exception:  # the original does not take such arguments: try others
            if given is not None:
                raise
            continue
        if not _is_numeric(expected):
            continue
        return _compared(space, name, text, call, names, expected, order)
    return Finding(name, False, NONE, "no call of it on arrays is known")


def _compared(
    space: Namespace,
    name: str,
    text: str,
    call: Callable[..., Any],
    arguments: Mapping[str, Any],
    expected: Any,
    order: int,
) -> Finding:
    function = space.traced(name)

    def f(*operands: Any) -> Any:
        return call(function, *operands)

    operands = tuple(arguments.values())
    example = text.replace("f(", f"{name}(", 1)
    try:
        graph = gd.trace(f, *operands)
        result = graph.evaluate(*operands)
    except Exception as error:
        return Finding(name, False, NONE, _first_line(error), example)
    if not _agree(result, expected):
        return Finding(name, False, NONE, "another result", example)
    gradient, why, some = _gradient(f, arguments, order)
    of_complex = _of_complex(function, getattr(space.module, name), call, arguments)
    return Finding(name, True, gradient, why, example, some, of_complex)


def _of_complex(
    function: Callable[..., Any],
    original: Callable[..., Any],
    call: Callable[..., Any],
    arguments: Mapping[str, Any],
) -> bool | None:
    """Whether the same call with complex numbers in the place of floats gives the same results."""
    operands = [
        x + 0.5j * np.flip(x) if x.dtype.kind == "f" else x
        for x in map(np.asarray, arguments.values())
    ]
    if not any(x.dtype.kind == "c" for x in operands):
        return None
    try:
        expected = call(original, *operands)
    except Exception:  # it takes real numbers only
        return None
    if not _is_numeric(expected):
        return None
    try:
        graph = gd.trace(lambda *operands: call(function, *operands), *operands)
        return _agree(graph.evaluate(*operands), expected)
    except Exception:
        return False


def _gradient(
    f: Callable[..., Any], arguments: Mapping[str, Any], order: int
) -> tuple[str, str, tuple[str, ...]]:
    """Whether there is a gradient; if not, why; and the arguments that it is by, if not by all."""
    floats = tuple(name for name, x in arguments.items() if np.asarray(x).dtype.kind == "f")
    try:
        result = gd.trace(lambda *x: _float_parts(f(*x)), *arguments.values())
    except gd.GraphError:  # no array is left as result
        return NO_FLOAT, "", ()
    if not floats or not result.outputs:
        return NO_FLOAT, "", ()
    verdict, why = _checked(f, arguments, floats, order)
    if verdict != NONE or len(floats) == 1:
        return verdict, why, ()
    some = tuple(x for x in floats if _checked(f, arguments, (x,), order)[0] == EXACT)
    return (EXACT, why, some) if some else (NONE, why, ())


def _checked(
    f: Callable[..., Any], arguments: Mapping[str, Any], moving: tuple[str, ...], order: int
) -> tuple[str, str]:
    """The gradient by some arguments against finite differences; the error if there is none."""

    def parts(*operands: Any) -> list[Any]:
        given = {**arguments, **dict(zip(moving, operands, strict=True))}
        return _float_parts(f(*given.values()))

    operands = [arguments[name] for name in moving]
    try:
        if _is_step(parts, operands):
            gd.check_grads(parts, *operands, order=1)
            return STEP, ""
        gd.check_grads(parts, *operands, order=order)
    except Exception as error:
        return NONE, _first_line(error)
    return EXACT, ""


def _is_step(f: Callable[..., Any], floats: list[Any]) -> bool:
    """Whether results stay the same when arguments move a little."""
    rng = np.random.default_rng(0)
    moved = [x + 1e-7 * rng.uniform(1, 2, np.shape(x)) for x in floats]
    graph = gd.trace(f, *floats)
    results = (leaves_of(graph.evaluate(*operands)) for operands in (floats, moved))
    return all(np.array_equal(x, y) for x, y in zip(*results, strict=True))


def _float_parts(result: Any) -> list[Any]:
    """The floats of a result, real and imaginary parts apart."""
    parts = []
    for leaf in leaves_of(result):
        kind = leaf.dtype.kind if hasattr(leaf, "dtype") else np.asarray(leaf).dtype.kind
        parts += {"f": [leaf], "c": [np.real(leaf), np.imag(leaf)]}.get(kind, [])
    return parts


def _call(text: str, names: tuple[str, ...]) -> Callable[..., Any]:
    """The text of a call as a function of f and of the values that it names."""
    helpers = {"np": np, "after": after}
    made: Callable[..., Any] = eval(f"lambda f, {', '.join(names)}: {text}", helpers)
    return made


def after(function: Callable[..., Any], target: Any, *rest: Any, **more: Any) -> Any:
    """A copy of an array after a function has worked on it in place."""
    changed = target.copy()
    function(changed, *rest, **more)
    return changed


def _words(text: str) -> set[str]:
    return set(compile(text, "<example>", "eval").co_names)


def _arity(space: Namespace, name: str) -> str:
    """The kind of templates to try: by the operands of a ufunc, integers among them."""
    function = getattr(space.module, name)
    if isinstance(function, np.ufunc):
        loops = [loop.split("->")[0] for loop in function.types]
        loop = next((x for x in loops if "d" in x), next((x for x in loops if "l" in x), loops[-1]))
        return "".join("i" if c in "ilpqbh" else "d" for c in loop)
    return space.title


def _is_numeric(result: Any) -> bool:
    leaves = leaves_of(result)
    kinds = {np.asarray(leaf).dtype.kind for leaf in leaves}
    return bool(leaves) and kinds <= set("biufc")


def _agree(result: Any, expected: Any) -> bool:
    got, want = leaves_of(result), leaves_of(expected)
    if len(got) != len(want):
        return False
    for x, y in zip(got, want, strict=True):
        if np.shape(x) != np.shape(y):
            return False
        if not np.allclose(x, y, rtol=1e-7, atol=1e-9, equal_nan=True):
            return False
    return True


def _first_line(error: Exception) -> str:
    text = str(error).split("\n", 1)[0]
    return text if text else type(error).__name__
