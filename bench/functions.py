"""A function as the users of each library write it, and the contestants made of it.

A benchmark states its question once a library, each in that library's own names; what is asked of
the function (its value, its gradients) is asked here, of every library in its best idiom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import placement
from bench.cases import Array, Prepared
from bench.peers import library

#: Takes a library's module, then the arrays.
Definition = Callable[..., Any]
Builder = Callable[[Mapping[str, Any]], Prepared]

#: What is asked of a function: its value; its value, a scalar, and the gradients; its value and
#: the gradients for a given cotangent of it, which is the last of the inputs.
VALUE, GRADIENT, PULLBACK = "value", "gradient", "pullback"


@dataclass(frozen=True)
class Function:
    """A function of arrays with one array or a tuple of them as its result.

    `numpy` is written in NumPy's names: graphdl compiles it, autograd runs it, and JAX runs it with
    `jax.numpy`, except where a definition of their own says it better. `jax` takes the module
    `jax`, `torch` and `pytensor` theirs (`pytensor.tensor`). Where one of these two is None, the
    library does not compete; nor does autograd where `derives` is False, nor torch.compile where
    `compiles` is.
    """

    numpy: Definition
    torch: Definition | None = None
    pytensor: Definition | None = None
    jax: Definition | None = None
    graphdl: Definition | None = None
    derives: bool = True
    compiles: bool = True


@dataclass(frozen=True)
class Question:
    """What is asked of a function: one of VALUE, GRADIENT, PULLBACK; by which arguments."""

    wants: str
    by: tuple[int, ...] = ()


def contestants(function: Function, question: Question) -> dict[str, Builder]:
    """The builders of all libraries that compete."""
    makers = {
        "graphdl": (with_graphdl, function.graphdl or function.numpy),
        "jax": (with_jax, function.jax or _with_names_of_numpy(function.numpy)),
        "torch": (with_torch, function.torch),
        "torch-compile": (with_torch_compile, function.torch if function.compiles else None),
        "pytensor": (with_pytensor, function.pytensor),
        "autograd": (with_autograd, function.numpy if function.derives else None),
    }
    if question.wants == VALUE:
        makers["numpy"] = (with_numpy, makers.pop("autograd")[1])
    return {
        name: partial(make, definition, question)
        for name, (make, definition) in makers.items()
        if definition is not None
    }


def _with_names_of_numpy(definition: Definition) -> Definition:
    return lambda jax, *arrays: definition(jax.numpy, *arrays)


def flat(results: Any) -> list[Any]:
    """Arrays in nested tuples and lists, in order."""
    if isinstance(results, tuple | list):
        return [array for part in results for array in flat(part)]
    return [results]


def asked(module: Any, f: Callable[..., Any], question: Question) -> Callable[..., Any]:
    """`f` with what is asked of it, in a library with the signatures of JAX."""
    if question.wants == VALUE:
        return f
    if question.wants == GRADIENT:
        asking: Callable[..., Any] = module.value_and_grad(f, argnums=question.by)
        return asking

    def pulled(*arrays: Any) -> Any:
        *operands, g = arrays

        def of_chosen(*chosen: Any) -> Any:
            filled = list(operands)
            for place, array in zip(question.by, chosen, strict=True):
                filled[place] = array
            return f(*filled)

        out, pull = module.vjp(of_chosen, *(operands[place] for place in question.by))
        return out, pull(g)

    return pulled


def with_graphdl(definition: Definition, question: Question, inputs: Mapping[str, Any]) -> Prepared:
    import graphdl as gd

    compiled = placement.compiled(asked(gd, lambda *arrays: definition(np, *arrays), question))
    arrays = placement.put(list(inputs.values()))
    return Prepared(
        lambda: flat(compiled(*arrays)),
        lambda: compiled(*arrays),
        lambda: compiled.lower(*arrays),
    )


def with_numpy(definition: Definition, question: Question, inputs: Mapping[str, Any]) -> Prepared:
    arrays = list(inputs.values())
    return Prepared(lambda: flat(definition(np, *arrays)), lambda: definition(np, *arrays))


def with_jax(definition: Definition, question: Question, inputs: Mapping[str, Any]) -> Prepared:
    jax = library("jax")

    if any(array.dtype == np.float64 for array in inputs.values()):
        jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(asked(jax, lambda *arrays: definition(jax, *arrays), question))
    arrays = [jax.numpy.asarray(array) for array in inputs.values()]

    def call() -> Any:
        return jax.block_until_ready(compiled(*arrays))

    return Prepared(lambda: flat(call()), call)


def with_torch(definition: Definition, question: Question, inputs: Mapping[str, Any]) -> Prepared:
    torch = library("torch")

    arrays = [placement.tensor(array) for array in inputs.values()]
    chosen = [arrays[place].requires_grad_() for place in question.by]

    def value() -> Any:
        with torch.inference_mode():
            return definition(torch, *arrays)

    def gradient() -> Any:
        out = definition(torch, *arrays)
        return out.detach(), torch.autograd.grad(out, chosen)

    def pullback() -> Any:
        out = definition(torch, *arrays[:-1])
        return out.detach(), torch.autograd.grad(out, chosen, arrays[-1])

    call = {VALUE: value, GRADIENT: gradient, PULLBACK: pullback}[question.wants]
    return Prepared(lambda: flat(call()), call)


def with_torch_compile(
    definition: Definition, question: Question, inputs: Mapping[str, Any]
) -> Prepared:
    """Value and gradients as one graph: Inductor then fuses the backward into the forward pass."""
    torch = library("torch")

    # Dynamo counts what it compiled of one line of source, and after eight runs it uncompiled; here
    # every case goes through the same lines.
    torch._dynamo.reset()

    def of_arrays(*arrays: Any) -> Any:
        return definition(torch, *arrays)

    if question.wants == GRADIENT:
        both = torch.func.grad_and_value(of_arrays, argnums=question.by)

        def f(*arrays: Any) -> Any:
            gradients, value = both(*arrays)
            return value, gradients

    else:
        f = asked(torch.func, of_arrays, question)
    compiled = torch.compile(f, dynamic=False)
    arrays = [placement.tensor(array) for array in inputs.values()]

    def call() -> Any:
        with torch.no_grad():
            return compiled(*arrays)

    return Prepared(lambda: flat(call()), call)


def with_pytensor(
    definition: Definition, question: Question, inputs: Mapping[str, Any]
) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    # Python's numbers take this type where an array meets them.
    pytensor.config.floatX = str(next(iter(inputs.values())).dtype)
    symbols = [
        pt.tensor(name, dtype=str(array.dtype), shape=array.shape) for name, array in inputs.items()
    ]
    chosen = [symbols[place] for place in question.by]
    if question.wants == PULLBACK:
        out = definition(pt, *symbols[:-1])
        outs = [out, *pytensor.grad(None, chosen, known_grads={out: symbols[-1]})]
    else:
        outs = flat(definition(pt, *symbols))
        if question.wants == GRADIENT:
            outs += pytensor.grad(outs[0], chosen)
    f = pytensor.function(
        [pytensor.In(symbol, borrow=True) for symbol in symbols],
        [pytensor.Out(out, borrow=True) for out in outs],
        mode="NUMBA",
        trust_input=True,
    )
    arrays = list(inputs.values())
    return Prepared(lambda: f(*arrays), lambda: f(*arrays))


def with_autograd(
    definition: Definition, question: Question, inputs: Mapping[str, Any]
) -> Prepared:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    def of_arrays(*arrays: Any) -> Any:
        return definition(anp, *arrays)

    arrays = list(inputs.values())
    if question.wants == GRADIENT:
        gradient = autograd.value_and_grad(of_arrays, argnum=question.by)
        return Prepared(lambda: flat(gradient(*arrays)), lambda: gradient(*arrays))
    pull = autograd.make_vjp(of_arrays, argnum=question.by)

    def call() -> Any:
        pulling, value = pull(*arrays[:-1])
        return value, pulling(arrays[-1])

    return Prepared(lambda: flat(call()), call)


def scaled(size: Sequence[int], scale: float, seed: int) -> Array:
    """Normal numbers of a shape in float32, times `scale`."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(tuple(size), np.float32) * np.float32(scale)
