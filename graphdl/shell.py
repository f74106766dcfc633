"""Functions and their arguments as a shell names them: `module:function --arg "f32[128,784]"`."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import graphdl
from graphdl.errors import ArgumentError
from graphdl.executable import Executable
from graphdl.types import DTYPES, TensorType

#: Short names of dtypes: f32, i64, u8, c128, bool.
_SHORT = {
    "bool": "bool",
    **{f"{dtype.kind}{8 * dtype.itemsize}": dtype.name for dtype in DTYPES if dtype.kind in "fiu"},
    "c64": "complex64",
    "c128": "complex128",
}


def add_function(parser: argparse.ArgumentParser) -> None:
    """Let a command take a function, its arguments, and whether its gradient is meant."""
    parser.add_argument(
        "function",
        metavar="module:function",
        help="the function: in a module, or in a file, as in path/to/file.py:function",
    )
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="TYPE",
        help="an argument in its order: f32[128,784], i64[10], bool, a number, or a list, tuple or "
        "dict of these, as in \"{'w': f32[3,4], 'b': f32[4]}\"",
    )
    parser.add_argument(
        "--grad", action="store_true", help="take the function's value and gradient instead"
    )


def lowered(options: argparse.Namespace) -> Executable:
    """The executable that the options name. Raises ArgumentError, and what tracing raises."""
    f = function_of(options.function)
    args = [argument_of(text) for text in options.arg]
    _refuse_misfit(options.function, f, args)
    if options.grad:
        f = graphdl.value_and_grad(f)
    return graphdl.compile(f).lower(*args)


def _refuse_misfit(text: str, f: Callable[..., Any], args: Sequence[Any]) -> None:
    """Raise ArgumentError for too few or too many arguments, where a signature says how many."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        raise ArgumentError(
            f"{text} takes {signature!s:.200}: {error}; write an --arg for each, "
            'as in --arg "f32[128,784]"'
        ) from None


def function_of(text: str) -> Callable[..., Any]:
    """The function that `module:function` or `file.py:function` names.

    Raises ArgumentError where there is no such module, file or function.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ArgumentError(f"{text!r}: write module:function, or path/to/file.py:function")
    found: Any = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            names = ", ".join(_functions(found)) or "none"
            raise ArgumentError(f"{place} has no {name!r}; its functions: {names}")
        found = getattr(found, part)
    if not callable(found):
        raise ArgumentError(f"{text!r} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and place.split(".")[0] != error.name.split(".")[0]:
                raise  # the module is there, and lacks another one
            raise ArgumentError(
                f"there is no module {place!r}; for a file write {place}.py"
            ) from None
    path = Path(place).resolve()
    if not path.is_file():
        raise ArgumentError(f"there is no file {place!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))  # as `python file.py` has it
    spec.loader.exec_module(module)
    return module


def _functions(module: Any) -> list[str]:
    return [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]


def argument_of(text: str) -> Any:
    """An argument by its text: a `gd.spec`, a Python number, None, or a tree of them.

    Raises ArgumentError for anything else.

    >>> argument_of("f32[128,784]")
    TensorType(dtype=dtype('float32'), shape=(128, 784))
    >>> argument_of("{'w': float64[3], 'rate': 0.1}")["rate"]
    0.1
    >>> argument_of('{"w": "f64[3]"}')
    {'w': TensorType(dtype=dtype('float64'), shape=(3,))}
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        raise ArgumentError(
            f"--arg {text!r}: write a dtype and a shape as in f32[128,784], with a dtype of "
            f"{', '.join(_SHORT)}; or a number; or a list, tuple or dict of these"
        ) from None


def _value(node: ast.expr) -> Any:
    """The value of a part of the text; ValueError where it is none."""
    match node:
        case ast.Dict(keys, values):
            return {
                ast.literal_eval(_present(k)): _value(v) for k, v in zip(keys, values, strict=True)
            }
        case ast.Tuple(items):
            return tuple(_value(item) for item in items)
        case ast.List(items):
            return [_value(item) for item in items]
        case ast.Name(name):
            return graphdl.spec((), _dtype(name))
        case ast.Subscript(ast.Name(name), index):
            sizes = ast.literal_eval(index)
            return _spec(name, sizes if isinstance(sizes, tuple) else (sizes,))
        case ast.Constant(str(quoted)):  # as JSON has to write a type
            return _value(ast.parse(quoted.strip(), mode="eval").body)
        case ast.Constant(bool() | int() | float() | complex() | None):
            return node.value
        case ast.UnaryOp(ast.USub()) | ast.BinOp():
            return ast.literal_eval(node)
    raise ValueError


def _spec(name: str, sizes: Sequence[Any]) -> TensorType:
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError
    return graphdl.spec(tuple(sizes), _dtype(name))


def _present(key: ast.expr | None) -> ast.expr:
    if key is None:
        raise ValueError
    return key


def _dtype(name: str) -> str:
    found = _SHORT.get(name, name)
    if found not in _SHORT.values():
        raise ValueError
    return found
