"""checkpoint: a function whose intermediate values a gradient computes anew."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from graphdl.compiler.close import closed
from graphdl.ops import control
from graphdl.tracing import TracedArray, current_trace, new_placeholder
from graphdl.transforms import effects
from graphdl.transforms.common import Function, called, results
from graphdl.trees import flatten, unflatten


def checkpoint(f: Function) -> Function:
    """f, of which a gradient keeps the arguments only: see gd.checkpoint."""

    @functools.wraps(f)
    def region(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace is None:
            return f(*args, **kwargs)
        leaves, tree = flatten((args, kwargs))
        inputs = [new_placeholder(x.type, trace) for x in leaves if isinstance(x, TracedArray)]
        operands = [x for x in leaves if isinstance(x, TracedArray)]
        for placeholder, operand in zip(inputs, operands, strict=True):
            operand.check_alive()
            placeholder.weak = operand.weak
        left = iter(inputs)
        inside = [next(left) if isinstance(x, TracedArray) else x for x in leaves]
        start = len(trace.sources)
        inner_args, inner_kwargs = unflatten(tree, inside)
        with effects.inside(trace) as happening, trace.inside("checkpoint"):
            outputs, out_tree = results(f, called(f, *inner_args, **inner_kwargs), trace)
        if happening.happened:
            inputs.append(happening.start)
            operands.append(effects.token_of(trace))
            outputs.append(happening.end)
        nodes = [placeholder.node for placeholder in inputs]
        own = set(itertools.islice(trace.sources, start, None))
        body, outer = closed([output.node for output in outputs], nodes, trace, own)
        values = [*(TracedArray(node, trace) for node in outer), *operands]
        if not values:
            return unflatten(out_tree, outputs)
        packed = values[0].apply_op(control.checkpoint, tuple(values), {"body": body})
        found = control.items(packed, [output.type for output in outputs])
        for value, output in zip(found, outputs, strict=True):
            value.weak = output.weak
        if happening.happened:
            trace.token = found.pop()
        return unflatten(out_tree, found)

    return region
