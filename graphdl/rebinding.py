"""Copies of the user's functions in which `numpy` is graphdl.numpy, and `min` takes traced ones.

NumPy is never patched: tracing runs a copy of the function, and of the Python functions that it
reaches, in which the names bound to a module of `STAND_INS`, or to a function of it, are bound to
what stands in for it. A copy has the same code, so that errors, debuggers and graphs name the
user's lines.

What is followed: global names, closures, defaults and imports inside of functions; of those Python
functions, functools.partial, functools.lru_cache (without its cache), functools.singledispatch
(which takes a traced array for the array or the number that it stands for), the user's classes and
objects with their methods and attributes (see graphdl.shadows), tuples, lists, dicts and sets of
these, and modules of the user's, whose functions are copied where they are looked up. A function
that is passed as an argument is a copy where what passes it is one. Not followed: exceptions and
classes that are trees of arguments, and code of the standard library and of the packages in
`_LEFT_ALONE`, but for a user's function that it wraps.

A function that assigns to a global name, or changes a list, a dict or a set that was copied,
changes its copy; the values are handed over when the trace has ended.
"""

from __future__ import annotations

import builtins
import collections
import copy
import dis
import functools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from graphdl import shadows
from graphdl.tracing import Trace, TracedArray

#: A module's name -> the one to use instead while tracing: its public names (`__all__`) are used,
#: all others are the module's own. They stand above this room, so they go by name, and are imported
#: when a trace first meets a process that has the module.
STAND_INS = {
    "numpy": "graphdl.numpy",
    "numpy.linalg": "graphdl.numpy_linalg",
    "numpy.random": "graphdl.numpy_random",
    "random": "graphdl.python_random",
    "scipy.special": "graphdl.special",
    "scipy.linalg": "graphdl.linalg",
    "builtins": "graphdl.builtins",
    "math": "graphdl.math",
}

_LEFT_ALONE = frozenset(
    {
        "graphdl", "numpy", "scipy", "numba", "llvmlite", "optree", "networkx", "jax", "jaxlib",
        "torch", "autograd", "pytensor", "tensorflow", "matplotlib", "tqdm", "pytest", "_pytest",
        "hypothesis", "IPython", "builtins",
    }
)  # fmt: skip
#: Parts of graphdl that are written as a user would.
_USERS = ("graphdl.examples",)


def rebound(f: Any, trace: Trace) -> Any:
    """What to use instead of a function, or of anything that holds functions, in a trace."""
    copies: _Copies | None = trace.memo.get("copies")
    if copies is None:
        copies = trace.memo["copies"] = _Copies()
    return copies.of(f)


def hand_over(trace: Trace) -> None:
    """Give the values of global names that the copies have assigned to their modules."""
    copies: _Copies | None = trace.memo.get("copies")
    if copies is not None:
        copies.hand_over()


class _View(types.ModuleType):
    """A module in which functions are looked up as their copies."""

    def __init__(self, module: types.ModuleType, find: Callable[[str], Any]) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__["_module"], self.__dict__["_find"] = module, find

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__["_find"](name)
        if callable(value) or isinstance(value, types.ModuleType):
            self.__dict__[name] = value  # the next time it is found at once
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_module"], name, value)
        self.__dict__.pop(name, None)


class _Copies:
    """The copies of one trace, each made once."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        #: The originals, which keep their ids as long as the copies are there.
        self.keep: list[Any] = []
        #: The copy of each module's global names, by the id of the original.
        self.globals: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.assigned: set[tuple[int, str]] = set()
        #: What reaches nothing that is replaced; the copies too.
        self.plain: set[int] = set()
        self.replaced = dict(_replaced_objects())
        #: Lists, dicts and sets: the original, its copy, and what the copy was at first.
        self.containers: list[tuple[Any, Any, list[Any]]] = []
        #: The shadows of classes.
        self.classes: dict[type, type] = {}
        self.instances = dict(_replaced_instances())
        own = vars(builtins)
        instead = {name: self.replaced[id(own[name])][1] for name in _BUILTINS}
        self.builtins = {**own, **instead, "__import__": self._import}

    def of(self, value: Any) -> Any:
        """The copy of a value; the value itself where nothing in it is replaced."""
        known = self.replaced.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self.made:
            return self.made[id(value)]
        if not self.is_concerned(value):
            return value
        return self._copied(value)

    def _copied(self, value: Any) -> Any:
        self.keep.append(value)
        made = self._copy(value)
        self.made[id(value)] = made
        if made is not value:
            self.keep.append(made)
            self.plain.add(id(made))
        return made

    def _copy(self, value: Any) -> Any:
        made: Any
        if type(value) in self.instances:
            return self.instances[type(value)](value)
        if isinstance(value, types.FunctionType):
            return self._dispatch(value) if _dispatches(value) else self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if type(value) in _CONTAINERS:
            return self._container(value)
        if isinstance(value, functools.partial):
            made = functools.partial(
                self.of(value.func),
                *map(self.of, value.args),
                **{name: self.of(item) for name, item in value.keywords.items()},
            )
        elif isinstance(value, types.MethodType):
            made = types.MethodType(self.of(value.__func__), self.of(value.__self__))
        elif isinstance(value, types.ModuleType):
            made = _View(value, lambda name: self.of(getattr(value, name)))
        elif isinstance(value, tuple):
            made = tuple(map(self.of, value))
            if type(value) is not tuple:
                made = tuple.__new__(type(value), made)
        elif type(value) is frozenset:
            made = frozenset(map(self.of, value))
        elif isinstance(value, functools._lru_cache_wrapper):
            made = self.of(value.__wrapped__)
        else:
            made = self._object(value)
        return made

    def _import(self, *args: Any, **kwargs: Any) -> Any:
        return self.of(builtins.__import__(*args, **kwargs))

    def _container(self, value: Any) -> Any:
        """A list, a dict or a set with the copies of what is in it."""
        made = copy.copy(value)
        self.made[id(value)] = made  # before what is in it, which may lead back
        _fill(made, map(self.of, _items(value)))
        if isinstance(made, collections.defaultdict):
            made.default_factory = self.of(value.default_factory)
        self.containers.append((value, made, _items(made)))
        return made

    def _function(self, f: types.FunctionType) -> types.FunctionType:
        is_users = is_written_by_user(f)
        names = self._global_names(f) if is_users else f.__globals__
        own = f.__closure__ or ()
        cells = tuple(
            # super() looks for the class itself among the bases of what it is called on
            types.CellType() if name != "__class__" and self._is_replaced_cell(c, is_users) else c
            for name, c in zip(f.__code__.co_freevars, own, strict=True)
        )
        made = types.FunctionType(f.__code__, names, f.__name__, None, cells or None)
        self.made[id(f)] = made  # before what it reaches: it may reach itself
        made.__defaults__ = f.__defaults__ and tuple(map(self.of, f.__defaults__))
        made.__kwdefaults__ = f.__kwdefaults__ and {
            name: self.of(value) for name, value in f.__kwdefaults__.items()
        }
        made.__qualname__, made.__doc__ = f.__qualname__, f.__doc__
        made.__annotations__ = f.__annotations__
        made.__dict__.update(f.__dict__)
        for new, old in zip(cells, own, strict=True):
            if new is not old:
                new.cell_contents = self.of(old.cell_contents)
        for code in codes_of(f.__code__) if is_users else ():
            for name in code.co_names:
                if name in f.__globals__:
                    names[name] = self.of(f.__globals__[name])
            self.assigned.update((id(f.__globals__), name) for name in _assigned_names(code))
        return made

    def _dispatch(self, f: Any) -> Callable[..., Any]:
        """What a functools.singledispatch function does with traced values."""

        @functools.wraps(f)
        def dispatched(*args: Any, **kwargs: Any) -> Any:
            return self.of(f.dispatch(_kind_of(args[0]) if args else object))(*args, **kwargs)

        return dispatched

    def _global_names(self, f: types.FunctionType) -> dict[str, Any]:
        """The global names of the copies of functions of this module: one dict for all."""
        found = self.globals.get(id(f.__globals__))
        if found is None:
            names = {**f.__globals__, "__builtins__": self.builtins}
            found = self.globals[id(f.__globals__)] = f.__globals__, names
        return found[1]

    def hand_over(self) -> None:
        for number, name in self.assigned:
            original, copy = self.globals[number]
            if name in copy and copy[name] is not self.of(original.get(name)):
                original[name] = copy[name]
        back = {id(made): value for value in self.keep if (made := self.made.get(id(value)))}
        for value, made, before in self.containers:
            now = _items(made)
            if len(now) != len(before) or any(map(operator.is_not, now, before)):
                _fill(value, (back.get(id(item), item) for item in now))

    def _class(self, kind: type) -> Any:
        """The shadow of a class of the user's."""
        if not _is_users(kind.__module__) or not shadows.can_be_shadowed(kind):
            return kind
        found = self.classes.get(kind)
        if found is None:
            bases = (self._class(base) for base in kind.__bases__ if base is not object)
            kept = tuple(base for base in bases if shadows.is_shadow(base))
            found = self.classes[kind] = shadows.shadow_class(kind, self.of, kept)
            self.keep.append(kind)
            self.made[id(kind)] = found  # before its methods: they may reach it
            shadows.fill(found, kind, self.of)
        return found

    def _object(self, value: Any) -> Any:
        """An object that shares its attributes with `value`, and whose methods are copies."""
        shadow = self._class(type(value))
        if not shadows.is_shadow(shadow):
            return value
        try:
            made = shadows.shadow_object(value, shadow, self.of)
        except TypeError:  # an object that only its class can make
            return value
        self.made[id(value)] = made  # before its attributes: they may reach it
        shadows.watch(type(made), value, self.of)
        return made

    # --- what a copy is needed of ---------------------------------------------------------------

    def is_concerned(self, value: Any) -> bool:
        """Whether something that is replaced can be reached from a value."""
        if id(value) in self.plain:
            return False
        seen: set[int] = set()
        pending = [value]
        while pending:
            at = pending.pop()
            if id(at) in self.replaced or id(at) in self.made:
                return True
            if id(at) in seen or id(at) in self.plain:
                continue
            seen.add(id(at))
            if type(at) in self.instances:
                return True
            if isinstance(at, types.ModuleType):
                if self._is_users_module(at):
                    return True
            elif isinstance(at, types.FunctionType) and (_dispatches(at) or _imports_users(at)):
                return True
            elif type(at) not in _DATA:
                pending += _reached(at)
        self.plain |= seen
        self.keep.append(value)
        return False

    def _is_users_module(self, module: types.ModuleType) -> bool:
        return _is_users(module.__name__) or any(
            name.startswith(module.__name__ + ".") for name in STAND_INS
        )

    def _is_replaced_cell(self, cell: types.CellType, is_users: bool) -> bool:
        try:
            content = cell.cell_contents
        except ValueError:  # nothing in it yet
            return False
        if is_users:
            return self.is_concerned(content)
        return _is_wrapped(content) and self.is_concerned(content)


#: Types of what leads nowhere.
_DATA = frozenset(
    {
        type(None), type(...), bool, int, float, complex, str, bytes, slice, range, np.ndarray,
        np.dtype, TracedArray,
    }
)  # fmt: skip
_CONTAINERS = (list, dict, set, collections.OrderedDict, collections.defaultdict)


def _items(container: Any) -> list[Any]:
    """What is in a list, a set, or a dict: there keys and values in turn."""
    if isinstance(container, dict):
        return [item for pair in container.items() for item in pair]
    return list(container)


def _fill(container: Any, items: Iterable[Any]) -> None:
    """Put `items`, as _items gives them, in the place of what is in a container."""
    found = list(items)
    container.clear()
    if isinstance(container, list):
        container.extend(found)
    else:
        container.update(
            zip(found[::2], found[1::2], strict=True) if isinstance(container, dict) else found
        )


def _reached(value: Any) -> list[Any]:
    """What a value leads to directly."""
    if isinstance(value, types.FunctionType):
        return list(references(value)) if is_written_by_user(value) else list(wrapped(value))
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, (tuple, frozenset, *_CONTAINERS)):
        items = _items(value)
        return [] if set(map(type, items)) <= _DATA else items  # a million numbers take no time
    if isinstance(value, functools._lru_cache_wrapper):
        return [value.__wrapped__]
    kind = value if isinstance(value, type) else type(value)
    if not _is_users(kind.__module__) or shadows.is_shadow(kind):
        return []
    if isinstance(value, type) and not shadows.can_be_shadowed(value):
        return []
    parts = [
        part
        for base in kind.__mro__
        if _is_users(base.__module__)
        for name, item in shadows.own_items(base)
        if name != "__init__" or kind is value
        for part in shadows.inside(item)
    ]
    if kind is not value:
        parts += getattr(value, "__dict__", {}).values()
        parts += (getattr(value, name, None) for name in shadows.slots_of(kind))
    return parts


def is_written_by_user(f: types.FunctionType) -> bool:
    """Whether a function is neither of a library that is left alone, nor of Python's own."""
    # not __module__, which a wrapper takes over from what it wraps; an example in a docstring has
    # the name of its module
    return _is_users(f.__globals__.get("__name__")) or f.__code__.co_filename.startswith("<doctest")


#: The code that all functions have that functools.singledispatch returns.
_DISPATCHING = functools.singledispatch(lambda x: x).__code__  # type: ignore[attr-defined]


def _dispatches(f: types.FunctionType) -> bool:
    return f.__code__ is _DISPATCHING


def _kind_of(value: Any) -> type:
    """The class of an argument, or of what a traced value stands for."""
    if not isinstance(value, TracedArray):
        return type(value)
    return np.ndarray if value.ndim or value.is_array else value.dtype.type


def _is_wrapped(content: Any) -> bool:
    """Whether a function of graphdl or of the standard library that holds this may wrap it."""
    if not isinstance(content, types.FunctionType):
        return False
    root = str(content.__globals__.get("__name__")).partition(".")[0]
    return root not in _LEFT_ALONE or root == "graphdl" or is_written_by_user(content)


def wrapped(f: types.FunctionType) -> Iterator[Any]:
    """The functions that a function of graphdl or of the standard library wraps."""
    for cell in f.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if _is_wrapped(content):
            yield content


def references(f: types.FunctionType) -> Iterator[Any]:
    """What a function of the user's names: global names, closures, defaults."""
    for code in codes_of(f.__code__):
        for name in code.co_names:
            if name in f.__globals__:
                yield f.__globals__[name]
        yield from map(vars(builtins).get, _replaced_builtins(code))
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        try:
            if name != "__class__":
                yield cell.cell_contents
        except ValueError:
            continue
    yield from f.__defaults__ or ()
    yield from (f.__kwdefaults__ or {}).values()


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of those that are defined inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


#: Those of Python's own names that have a stand-in.
_BUILTINS = frozenset({"all", "any", "max", "min", "sorted"})


@functools.lru_cache(1024)
def _replaced_builtins(code: types.CodeType) -> tuple[str, ...]:
    """Python's own names that code reads, not as attributes, and that have a stand-in."""
    wanted = _BUILTINS.intersection(code.co_names)
    if not wanted:
        return ()
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    read = {i.argval for i in dis.get_instructions(code) if i.opname in loads}
    return tuple(sorted(wanted & read))


@functools.lru_cache(1024)
def _assigned_names(code: types.CodeType) -> tuple[str, ...]:
    """The global names that code assigns to."""
    stores = ("STORE_GLOBAL", "DELETE_GLOBAL")
    return tuple({i.argval for i in dis.get_instructions(code) if i.opname in stores})


def _imports_users(f: types.FunctionType) -> bool:
    """Whether a user's function itself imports something of which there are copies."""
    return is_written_by_user(f) and any(
        name in _STAND_IN_ROOTS or _is_users(name)
        for code in codes_of(f.__code__)
        if any(name in sys.modules for name in code.co_names)  # which is sooner known
        for name in _imported_roots(code)
    )


_STAND_IN_ROOTS = frozenset(name.partition(".")[0] for name in STAND_INS)


@functools.lru_cache(1024)
def _imported_roots(code: types.CodeType) -> tuple[str, ...]:
    """The packages that code imports from."""
    found = (i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME")
    return tuple({name.partition(".")[0] for name in found if name})


def _is_users(module: str | None) -> bool:
    """Whether code is the user's own, by the name of its module."""
    if module is None or module.startswith(_USERS):
        return True
    root = module.partition(".")[0]
    return root not in _LEFT_ALONE and root not in sys.stdlib_module_names


def _replaced_objects() -> Mapping[int, tuple[Any, Any]]:
    """The id of each module and function that has a stand-in -> it, and the stand-in."""
    found: dict[int, tuple[Any, Any]] = {}
    for name, stand_in in STAND_INS.items():
        module = sys.modules.get(name)
        if module is None:
            continue
        found.update(_table(module, stand_in))
    return found


def _table(module: types.ModuleType, stand_in: str) -> dict[int, tuple[Any, Any]]:
    """What a module's stand-in replaces, by the id of the original."""
    key = (module.__name__, id(module))
    if key not in _TABLES:
        _TABLES[key] = dict(_replacements(module, import_module(stand_in)))
    return _TABLES[key]


#: What a module's stand-in replaces, found once.
_TABLES: dict[tuple[str, int], dict[int, tuple[Any, Any]]] = {}


def _replacements(
    module: types.ModuleType, stand_in: types.ModuleType
) -> Iterator[tuple[int, tuple[Any, Any]]]:
    names = [name for name in stand_in.__all__ if hasattr(module, name)]
    for name in names:
        original, instead = getattr(module, name), getattr(stand_in, name)
        if original is not instead:
            yield id(original), (original, instead)

    def find(name: str) -> Any:
        value = getattr(stand_in if name in names else module, name)
        if isinstance(value, types.ModuleType) and value.__name__ in STAND_INS:
            return _table(value, STAND_INS[value.__name__])[id(value)][1]  # numpy.linalg
        return value

    yield id(module), (module, _View(module, find))


def _replaced_instances() -> Iterator[tuple[type, Callable[[Any], Any]]]:
    """The classes of NumPy whose objects something else stands for, and what makes that of them."""
    for name, stand_in in STAND_INS.items():
        if name in sys.modules:
            yield from getattr(import_module(stand_in), "INSTANCES", {}).items()
