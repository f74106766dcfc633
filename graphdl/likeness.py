"""Classes that stand in for others while tracing: NumPy's, and Python's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Likeness:
    """What metaclasses share whose classes are `shadowed` to `isinstance`, `==` and dicts."""

    shadowed: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.shadowed)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.shadowed)

    def __eq__(cls, other: object) -> bool:
        return other is cls or cls.shadowed == other

    def __hash__(cls) -> int:
        return hash(cls.shadowed)


class Like(Likeness, type):
    """A class whose instances are those of `original`, and the traced values that `takes` names.

    Calling it makes what `new` returns.
    """

    takes: Callable[[Any], bool]

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or cls.takes(instance)


def like(original: type, new: Callable[..., Any], takes: Callable[[Any], bool], **more: Any) -> Any:
    """The class that stands in for `original`; `more` are attributes of it."""
    namespace = {"__new__": new, "shadowed": original, "takes": staticmethod(takes), **more}
    return Like(original.__name__, (original,), {**namespace, "__doc__": original.__doc__})


__all__ = ["Like", "Likeness", "like"]
