"""Functions of the user's that programs call, made by `gd.op`.

A scalar function is a name in the text of kernels, and LLVM inlines it. Its text stands for itself
in the key of the cache only as far as it can be read: the name ends in a digest of the function's
code and of all that it refers to. Where something cannot be digested (an object that Numba freezes
into the code by its address, a function reached through a module of the user's) the name is one of
this process, and kernels that call it are not kept on disk.

A function of arrays is called by address, from a kernel whose text knows nothing of it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct, field

from graphdl.compiler.costs import USER_COST
from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.program import Address, Check, Launch, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops import control
from graphdl.types import TensorType

#: Modules whose functions are what their names say, in any process with these versions.
_KNOWN_MODULES = ("math", "cmath", "numpy", "operator", "builtins", "numba")
_serials = itertools.count()


class UserFunction(Struct, frozen=True, eq=False):
    """A function that Numba compiles.

    function: what `numba.njit` made. symbol: its name in kernels and among all such functions.
    is_kept: whether kernels that call it may be kept on disk.
    """

    name: str
    symbol: str
    function: Any
    is_kept: bool
    calls: dict[Any, Any] = field(default_factory=dict)


#: Before the symbol of a scalar function: whether it raises an exception.
RAISED_BY = "raised_by_"
#: By the symbol.
FUNCTIONS: dict[str, UserFunction] = {}


def registered(function: Any) -> UserFunction:
    """The record of a function that `numba.njit` made; the same code has the same symbol."""
    digest = hashlib.sha256()
    is_kept = _digest(function, digest, set())
    name = function.py_func.__name__
    word = re.sub(r"\W+", "", name) or "function"
    own = digest.hexdigest()[:12] if is_kept else f"p{os.getpid()}n{next(_serials)}"
    symbol = f"user_{word}_{own}"
    return FUNCTIONS.setdefault(symbol, UserFunction(name, symbol, function, is_kept))


def called_in(text: str) -> list[UserFunction]:
    """The scalar functions that the text of a kernel calls."""
    found = re.findall(rf"\b(?:{RAISED_BY})?(user_\w+)", text)
    return [FUNCTIONS[name] for name in dict.fromkeys(found)]


# --- digests ----------------------------------------------------------------------------------


def _digest(value: Any, digest: Any, seen: set[int]) -> bool:
    """Add what a value means to compiled code; False if that cannot be told."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        digest.update(f"{type(value).__name__} {value!r};".encode())
        return True
    if isinstance(value, (tuple, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        digest.update(f"{type(value).__name__} {len(value)};".encode())
        return all(_digest(item, digest, seen) for item in items)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        digest.update(f"array {value.dtype.str} {value.shape};".encode() + value.tobytes())
        return True
    if isinstance(value, types.ModuleType):
        digest.update(f"module {value.__name__};".encode())
        return value.__name__.split(".")[0] in _KNOWN_MODULES
    if hasattr(value, "py_func") and hasattr(value, "targetoptions"):
        return _digest_function(value, digest, seen)
    if isinstance(value, types.CodeType):
        return _digest_code(value, digest, seen)
    module = str(getattr(value, "__module__", ""))
    digest.update(f"{module} {getattr(value, '__qualname__', value)!r};".encode())
    return module.split(".")[0] in _KNOWN_MODULES and not hasattr(value, "__closure__")


def _digest_function(dispatcher: Any, digest: Any, seen: set[int]) -> bool:
    function = dispatcher.py_func
    digest.update(f"function {sorted(dispatcher.targetoptions.items())!r};".encode())
    if id(function) in seen:
        return True
    seen.add(id(function))
    known = _digest_code(function.__code__, digest, seen)
    known &= _digest(function.__defaults__ or (), digest, seen)
    for cell in function.__closure__ or ():
        known &= _digest(cell.cell_contents, digest, seen)
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            digest.update(f"{name}=".encode())
            known &= _digest(function.__globals__[name], digest, seen)
    return known


def _digest_code(code: types.CodeType, digest: Any, seen: set[int]) -> bool:
    digest.update(code.co_code)
    digest.update(f"{code.co_names} {code.co_varnames} {code.co_freevars};".encode())
    return all(_digest(constant, digest, seen) for constant in code.co_consts)


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


# --- functions of arrays ----------------------------------------------------------------------


def writes_results(user: UserFunction, operands: int, results: int) -> bool:
    """Whether a function takes the arrays of its results as its last arguments."""
    return bool(user.function.py_func.__code__.co_argcount == operands + results)


_TEXT = """def kernel(table, lo, hi):
    call(table[0], table)
"""

#: (symbol, types of the operands, types of the results) -> the address of `void f(int64 *table)`.
Compile = Callable[[str, tuple[TensorType, ...], tuple[TensorType, ...]], int]


def launch(node: Node, check: Check, compile: Compile) -> list[Launch]:
    """The launch of an op whose `symbol` is that of a function of arrays.

    Words of the table: the function, the status word and what to write there if the function
    raises, then for each array its address and its sizes.
    """
    operands = tuple(operand.type for operand in node.inputs)
    results = tuple(control.result_types(node))
    address = compile(node.op.symbol, operands, results)
    words: list[Word] = [address, Address(check.status), check.number]
    reads = []
    for operand in node.inputs:
        view = view_of(operand)
        assert view is not None, f"{operand!r} is no view of memory"
        reads.append(view.base)
        words += [Address(view.base, view.offset * operand.dtype.itemsize), *operand.shape]
    for type, start in zip(results, control.offsets(results), strict=False):
        words += [Address(node, start), *type.shape]
    size = sum(type.size for type in (*operands, *results))
    moved = sum(type.nbytes for type in (*operands, *results))
    return [
        Launch(
            KernelSource(node.op.name, _TEXT),
            tuple(words),
            1,
            USER_COST * size,
            tuple(dict.fromkeys(reads)),
            (node, check.status),
            (),
            (node,),
            moved,
            size,
        )
    ]
