"""Fusion: how many kernels known programs become, and that new sizes compile none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import fuse, pipeline
from graphdl.compiler.origins import origins
from graphdl.kernels.cpu import native
from graphdl.numpy_functions import gelu
from tests.programs import check_compiled, program_of


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift


def cross_entropy(x, labels):
    top = np.max(x, axis=1, keepdims=True)
    logits = x - top - np.log(np.sum(np.exp(x - top), axis=1, keepdims=True))
    return -np.mean(logits[np.arange(len(labels)), labels])


def pointwise(a, x):
    """The pointwise benchmark."""
    return np.sum(np.tanh(a * x + 0.5) * (1 / (1 + np.exp(-1.5 * x))) + np.exp(-x * x))


X, W, B, LABELS = normal(4, 5), normal(5, 6), normal(6), np.array([0, 5, 2, 3])

#: Function, arguments, and the kernels that it becomes.
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "value and gradients of a pointwise sum": (
        gd.value_and_grad(pointwise, argnums=(0, 1)), (normal(1000), normal(1000) + 1), 1,
    ),
    "a chain with several results": (lambda x: (np.exp(x), np.exp(x) + 1, x * 2), (X,), 1),
    "broadcasts": (lambda x, r, c: (x + r) * c - 1, (X, normal(5), normal(4, 1)), 1),
    "a reduction and what it reads": (lambda x: (np.sum(np.tanh(x)), np.max(x), x * 2), (X,), 1),
    "softmax": (softmax, (X,), 1),
    "log-softmax": (lambda x: x - np.log(np.sum(np.exp(x), axis=1, keepdims=True)), (X,), 1),
    "layer norm": (layer_norm, (X, normal(5), normal(5) + 1), 1),
    "gradients of layer norm": (
        gd.grad(lambda x, a, b: np.sum(np.tanh(layer_norm(x, a, b))), argnums=(0, 1, 2)),
        (X, normal(5), normal(5) + 1),
        1,
    ),
    "bias and ReLU after a product": (lambda x, w, b: np.maximum(x @ w + b, 0), (X, W, B), 1),
    "GELU after a product": (lambda x, w, b: gelu(x @ w + b), (X, W, B), 1),
    "a residual after a product": (lambda x, w, r: r + x @ w, (X, W, normal(4, 6)), 1),
    "an update inside a product": (
        lambda w, x, g, rate: w - rate * (x.T @ g), (W, X, normal(4, 6), 0.1), 1,
    ),
    "momentum inside a product": (
        lambda w, v, x, g: (w - 0.1 * (0.9 * v + x.T @ g), 0.9 * v + x.T @ g),
        (W, normal(5, 6), X, normal(4, 6)),
        1,
    ),
    "a product of what a kernel computes": (lambda x, w: np.tanh(x) @ w, (X, W), 2),
    "two products": (lambda x, w: np.maximum(x @ w, 0) @ w.T, (X, W), 2),
    "rows, then all": (lambda x: np.sum(np.log(np.sum(np.exp(x), axis=1))), (X,), 1),
    "transposed operands": (lambda x, y: x.T + y, (X, normal(5, 4)), 1),
    "a view of an argument": (lambda x: np.exp(x[::2, 1:]) * 2, (X,), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_of_a_program(name):
    f, args, count = PROGRAMS[name]
    executable = check_compiled(f, *args, ulps=100, numpy=False)
    assert len(executable.kernels) == count, executable.explain()


def test_no_value_of_a_fused_chain_is_stored():
    executable = gd.compile(lambda x: np.sum(np.tanh(x * 2 + 1) ** 2)).lower(normal(500))
    assert executable.memory.arena_bytes == 0
    assert executable.memory.result_bytes == 4


def test_optimiser_steps_of_many_tensors_run_side_by_side():
    shapes = [(10, 3), (3,), (4, 4), (7,), (2, 2, 2)]
    trees = [normal(*shape) for shape in shapes]

    def f(parameters, slopes):
        return [p - 0.1 * g for p, g in zip(parameters, slopes, strict=True)]

    executable = check_compiled(f, trees, trees)
    assert len({kernel.source.split("\n", 3)[-1] for kernel in executable.kernels}) <= len(shapes)
    assert len({launch.source.text for launch in program_of(executable.graph).launches}) == 1


# --- groups ---------------------------------------------------------------------------------------


def groups_of(f: Callable[..., Any], *args: Any) -> tuple[Any, list[fuse.Group]]:
    graph = pipeline.optimise(gd.trace(f, *args))[-1][1]
    return graph, fuse.fuse(graph)


def test_a_group_never_waits_for_itself():
    """x + reversed(cumsum(x + 1)): the ends of the chain must not be one kernel."""

    def f(x):
        y = x + 1
        return y * np.cumsum(y), y

    check_compiled(f, normal(6, dtype=np.float64))
    _, groups = groups_of(f, normal(6))
    assert [group.kind for group in groups].count("loops") == 2


def test_what_is_read_elsewhere_stays_apart():
    """y and y[::-1] cannot be computed in one pass over y."""

    def f(x):
        y = np.exp(x)
        return y + y[::-1], np.sum(y * y[::-1])

    check_compiled(f, normal(7, dtype=np.float64))
    graph, groups = groups_of(f, normal(7))
    home = {node: group for group in groups for node in group.members}
    exp = next(node for node in graph.nodes if node.op.name == "exp")
    add = next(node for node in graph.nodes if node.op.name == "add")
    assert home[exp] is not home[add]


def test_every_node_has_one_group():
    def f(x, w):
        return gd.transforms.value_and_grad(lambda w: cross_entropy(np.tanh(x @ w), LABELS))(w)

    graph, groups = groups_of(f, X, W)
    members = [node for group in groups for node in group.members]
    assert len(members) == len(set(members))
    computed: set[Any] = set()
    kept = fuse.stored(graph, groups)
    for group in groups:
        for node in group.members:
            for operand in node.inputs:
                for origin in origins(operand):
                    if origin in set(members) - set(group.members):
                        assert origin in computed, "a group reads what is not there yet"
                        assert origin in kept
        computed.update(group.members)
    assert set(graph.outputs) <= computed


def test_a_group_does_not_grow_without_end():
    def f(x):
        for i in range(1000):
            x = x * 1.5 - i
        return x

    _, groups = groups_of(f, normal(5))
    assert max(len(group.members) for group in groups) <= fuse.MAX_MEMBERS


def test_numbers_that_a_product_needs_are_computed_before_its_rows():
    def step(x, w, mean, count):
        corrected = (0.9 * mean + 0.1 * (x.T @ w)) / (1 - 0.9 ** (count + 1))
        return corrected, np.sum(corrected)

    arguments = X, normal(4, 6), normal(5, 6), np.float32(3)
    check_compiled(step, *arguments)
    (text,) = (
        kernel.source
        for kernel in gd.compile(step).lower(*arguments).kernels
        if "power(" in kernel.source and "contract" in kernel.name
    )
    assert text.index("power(") < text.index("for row in")


def test_a_product_of_one_element_and_numbers_made_of_it():
    def f(a, b, t):
        total = a @ b
        return total * np.exp(t), np.sin(total) + t * total, np.sin(total.reshape(())) * total

    for dtype in (np.float32, np.float64):
        check_compiled(f, normal(7, dtype=dtype), normal(7, dtype=dtype) + 1, dtype(0.5))
        check_compiled(f, normal(1, 7, dtype=dtype), normal(7, 1, dtype=dtype), dtype(0.5))


def test_numbers_are_not_computed_anew_without_end():
    """A long chain of numbers is cut; each kernel computes only the last piece for itself."""

    def f(x, m):
        for i in range(300):
            x = x * 0.9 + i % 3
        return x * m, np.sum(m) * x

    executable = check_compiled(f, 1.5, normal(3, 4, dtype=np.float64), python=False)
    assert max(len(kernel.source.splitlines()) for kernel in executable.kernels) < 250


def test_reductions_of_a_kernel_are_limited():
    def f(x):
        return [np.sum(x * i) for i in range(100)]

    executable = check_compiled(f, normal(3, 4, dtype=np.float64), separate=False, python=False)
    assert 3 <= len(executable.kernels) <= 8


# --- sizes ----------------------------------------------------------------------------------------


def parameters(*widths: int) -> list[tuple[Any, Any]]:
    return [(normal(m, n), normal(n)) for m, n in itertools.pairwise(widths)]


def network(layers, x):
    for w, b in layers[:-1]:
        x = np.maximum(x @ w + b, 0)
    w, b = layers[-1]
    return x @ w + b


def classify(layers, x, labels):
    value, slopes = gd.value_and_grad(lambda p: cross_entropy(network(p, x), labels))(layers)
    return value, [
        tuple(p - 0.1 * g for p, g in zip(layer, slope, strict=True))
        for layer, slope in zip(layers, slopes, strict=True)
    ]


def regress(layers, x, labels):
    def loss(p):
        return np.mean((np.sum(softmax(network(p, x)), axis=1) - labels) ** 2)

    return gd.value_and_grad(loss)(layers)


@pytest.mark.parametrize("f", [classify, regress], ids=lambda f: f.__name__)
def test_a_new_batch_size_compiles_no_kernel(f):
    layers = parameters(12, 20, 6)
    compiled = gd.compile(f)

    def call(batch):
        rng = np.random.default_rng(batch)
        compiled(layers, normal(batch, 12), rng.integers(0, 6, batch))

    call(2)
    before = native.compile_count()
    for batch in (3, 4, 7, 16, 33, 64, 65, 128, 500, 1000, 1024):
        call(batch)
        assert native.compile_count() == before, f"batch {batch}"


def test_new_sizes_of_reductions_compile_no_kernel():
    """From a few elements, which are one block, to many blocks and a sum of their results.

    Rows are side by side, in one masked loop or in a loop over vectors: three texts by the length.
    """

    @gd.compile
    def f(x):
        y = np.tanh(x)
        return np.sum(y, axis=0), np.sum(y, axis=1), np.max(y), softmax(y)

    for first, others in (
        ((3, 5), ((4, 9), (1000, 16), (5000, 7))),
        ((3, 20), ((300, 17), (5000, 33))),
        ((3, 70), ((1000, 65), (50, 3000))),
    ):
        f(normal(*first))
        before = native.compile_count()
        for m, n in others:
            f(normal(m, n))
            assert native.compile_count() == before, f"{m} x {n}"


def test_what_follows_a_group_follows_what_is_merged_with_it_and_all_that_comes_before() -> None:
    fusion = fuse._Fusion(gd.trace(np.sin, gd.spec((4,))))
    a, b, follower, before = (fusion.new("loops", (4,)) for _ in range(4))
    fusion.add_before(follower.number, 1 << b.number)
    assert fusion._merged(a, b) is a
    fusion.add_before(a.number, 1 << before.number)
    assert fusion.before[follower.number] == 1 << a.number | 1 << before.number
