"""Constants of the user's that a traced function has read by name, and whether they have changed.

A global array or number that a function reads is a constant of what is compiled. A function whose
constants are changed between calls, a batch for instance, would go on with the old ones and nobody
would notice. To compare them at each call would cost more than the calls; but what changes between
calls mostly does so from the first call on, so the first calls after a trace compare.
"""

from __future__ import annotations

import dis
import functools
import itertools
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.errors import StaleConstantWarning
from graphdl.rebinding import codes_of, is_written_by_user, references, wrapped
from graphdl.tracing import user_source, where_text

#: How many calls after a trace compare.
CALLS = 2
#: Of how many elements of an array: in 1 ms, enough to see another batch.
_ELEMENTS = 1 << 16
#: Larger arrays are looked at here and there, at multiples of a large prime, which meet rows and
#: columns alike (Knuth, The Art of Computer Programming, volume 3, section 6.4).
_STRIDE = 2654435761
#: How many functions that a function leads to are looked at.
_FUNCTIONS = 500

_NUMBERS = (bool, int, float, complex, np.generic)
_MISSING = object()


class Captured(Struct):
    """A name of a function: how to read it now, and what it was."""

    name: str
    function: str
    read: Callable[[], Any]
    before: Any


def captured_by(f: Callable[..., Any]) -> list[Captured]:
    """The arrays and numbers that a function, and those that it leads to, read by name."""
    found: list[Captured] = []
    seen: dict[int, Any] = {}
    pending: list[Any] = [f]
    while pending and len(seen) < _FUNCTIONS:
        at = pending.pop()
        if id(at) in seen:
            continue
        seen[id(at)] = at
        if isinstance(at, functools.partial):
            pending.append(at.func)
        elif isinstance(at, types.MethodType):
            found += _attributes(at)
            pending.append(at.__func__)
        elif not isinstance(at, types.FunctionType):
            pending += [at.__wrapped__] if hasattr(at, "__wrapped__") else []
        elif is_written_by_user(at):
            found += (*_globals(at), *_cells(at))
            pending += (item for item in references(at) if _is_function(item))
        else:
            pending += wrapped(at)
    return found


def warn_of_changes(names: list[Captured], function: str) -> bool:
    """Warn of the first name that is something else than it was; whether there is one."""
    changed = next((name for name in names if not _is_same(name)), None)
    if changed is None:
        return False
    source = user_source()
    warnings.warn_explicit(
        f"{changed.name}, which {changed.function} reads, has changed since {function} was "
        f"compiled. Arrays and numbers that a function reads by name are constants of what is "
        f"compiled: this call, and those after it, go on with the old value. Make it an argument. "
        f"(The first {CALLS} calls after a compilation look for this, later ones do not)"
        f"{where_text(source, 'called at')}",
        StaleConstantWarning,
        source.file if source else "",
        source.line if source else 0,
    )
    return True


def _is_function(item: Any) -> bool:
    kinds = (types.FunctionType, types.MethodType, functools.partial)
    return isinstance(item, kinds) or (callable(item) and hasattr(item, "__wrapped__"))


def _globals(f: types.FunctionType) -> Iterator[Captured]:
    names = f.__globals__
    for code in codes_of(f.__code__):
        candidates = {name for name in code.co_names if _is_data(names.get(name))}
        if candidates:
            uses = [(i.opname, i.argval) for i in dis.get_instructions(code)]
            read = {name for use, name in uses if use in ("LOAD_GLOBAL", "LOAD_NAME")}
            own = {name for use, name in uses if use in ("STORE_GLOBAL", "DELETE_GLOBAL")}
            for name in sorted(candidates & read - own):
                get = functools.partial(names.get, name, _MISSING)
                yield Captured(f"the global {name!r}", f.__name__, get, _noted(names[name]))


def _cells(f: types.FunctionType) -> Iterator[Captured]:
    assigned = {
        i.argval
        for code in codes_of(f.__code__)
        if code.co_freevars
        for i in dis.get_instructions(code)
        if i.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        value = _content(cell)
        if name not in assigned and _is_data(value):
            get = functools.partial(_content, cell)
            yield Captured(f"{name!r} of the enclosing function", f.__name__, get, _noted(value))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing in it any more
        return _MISSING


def _attributes(method: types.MethodType) -> Iterator[Captured]:
    """The attributes of an object that its method names and does not assign."""
    own, code = getattr(method.__self__, "__dict__", {}), getattr(method.__func__, "__code__", None)
    if code is None or not code.co_varnames:
        return
    uses = list(dis.get_instructions(code))
    stored = {i.argval for i in uses if i.opname in ("STORE_ATTR", "DELETE_ATTR")}
    for before, use in itertools.pairwise(uses):
        of_self = before.opname.startswith("LOAD_FAST") and before.argval == code.co_varnames[0]
        if of_self and use.opname == "LOAD_ATTR" and use.argval not in stored:
            value = own.get(use.argval)
            if _is_data(value):
                get = functools.partial(own.get, use.argval, _MISSING)
                what = f"the attribute {use.argval!r}"
                yield Captured(what, method.__func__.__name__, get, _noted(value))


def _is_data(value: Any) -> bool:
    return isinstance(value, (np.ndarray, *_NUMBERS))


def _noted(value: Any) -> Any:
    """What is kept of a value to compare with: its type, and its elements or some of them."""
    if not isinstance(value, np.ndarray):
        return value
    if value.size <= _ELEMENTS:
        return value.dtype, value.shape, value.copy()
    places = np.arange(_ELEMENTS) * _STRIDE % value.size
    return value.dtype, value.shape, np.array(value.flat[places])


def _is_same(name: Captured) -> bool:
    now = name.read()
    if not _is_data(now):
        return now is _MISSING  # as for a name that a test or a notebook has cleared away
    noted = _noted(now)
    if not isinstance(noted, tuple) or not isinstance(name.before, tuple):
        return type(noted) is type(name.before) and bool(noted == name.before or noted != noted)
    *kind, elements = noted
    *kind_before, before = name.before
    return kind == kind_before and elements.tobytes() == before.tobytes()
