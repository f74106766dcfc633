"""numpy.random while tracing: see graphdl.hidden_random. Generators from outside warn as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy import random as _random

from graphdl.hidden_random import seeding, warn, warning
from graphdl.tracing import as_traced_results, current_trace

#: What draws no numbers.
_OTHERS = frozenset(
    {
        "BitGenerator", "Generator", "MT19937", "PCG64", "PCG64DXSM", "Philox", "RandomState",
        "SFC64", "SeedSequence", "default_rng", "get_bit_generator", "get_state", "seed",
        "set_bit_generator", "set_state", "test", "bit_generator", "spawn",
    }
)  # fmt: skip


def _methods(kind: type) -> list[str]:
    return [
        name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    ]


def _watched_kind(kind: Any) -> Any:
    """A class of generators that ask another one, which they stand for."""

    def method(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if name not in _OTHERS:
                warn(f"{kind.__name__}.{name}")
            result = getattr(self.original, name)(*args, **kwargs)
            trace = current_trace()
            return result if trace is None else as_traced_results(result, trace)

        return call

    return type(kind.__name__, (kind,), {name: method(name) for name in _methods(kind)})


_KINDS = {kind: _watched_kind(kind) for kind in (_random.Generator, _random.RandomState)}


def _watched(generator: Any) -> Any:
    """What stands for a generator with a state from outside of the traced function."""
    made = _KINDS[type(generator)](getattr(generator, "bit_generator", generator._bit_generator))
    made.original = generator
    return made


def default_rng(seed: Any = None) -> Any:
    """np.random.default_rng; without a seed the generator warns when it is asked."""
    made = _random.default_rng(seed)
    return _watched(made) if seed is None and current_trace() is not None else made


seed = seeding(_random.seed)

#: The classes whose objects something else stands for, and what makes that of them.
INSTANCES = dict.fromkeys(_KINDS, _watched)


def _fill(module: dict[str, Any]) -> list[str]:
    names = [name for name in _random.__all__ if name not in _OTHERS]
    for name in names:
        module[name] = warning(f"np.random.{name}", getattr(_random, name))
    return names


__all__ = [*_fill(globals()), "default_rng", "seed"]
