"""Convolution: values against SciPy and plain loops, gradients, kernels, layouts, layers."""

import itertools

import numpy as np
import pytest
from scipy import signal

import graphdl as gd
from graphdl import nn
from graphdl.compiler import pipeline
from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.kernels.cpu import convolution as kernels
from graphdl.kernels.cpu import cores, depthwise, llvm, loading, patches, product, tiles
from graphdl.kernels.cpu.tiles import Registers
from graphdl.ops.convolution import Axis, convolve, filter_gradient
from tests.programs import bits, check_compiled, lower


def by_loops(x, w, strides, padding, lhs, rhs, groups):
    """The definition, place by place, in float64."""
    rank = x.ndim - 2
    spread = np.zeros(
        (
            x.shape[0],
            *((n - 1) * d + 1 for n, d in zip(x.shape[1:-1], lhs, strict=True)),
            x.shape[-1],
        )
    )
    spread[(slice(None), *(slice(None, None, d) for d in lhs))] = x
    inside, window = spread.shape[1:-1], w.shape[:rank]
    outs = [
        max((n + low + high - ((k - 1) * d + 1)) // s + 1, 0)
        for n, (low, high), k, d, s in zip(inside, padding, window, rhs, strides, strict=True)
    ]
    out = np.zeros((x.shape[0], *outs, w.shape[-1]))
    cg, og = x.shape[-1] // groups, w.shape[-1] // groups
    for p in np.ndindex(*outs):
        for k in np.ndindex(*w.shape[:rank]):
            at = [
                a * s + b * d - low
                for a, s, b, d, (low, _) in zip(p, strides, k, rhs, padding, strict=True)
            ]
            if not all(0 <= a < n for a, n in zip(at, inside, strict=True)):
                continue
            seen = spread[(slice(None), *at)]
            for g in range(groups):
                rows = seen[:, g * cg : (g + 1) * cg]
                out[(slice(None), *p, slice(g * og, (g + 1) * og))] += rows @ w[k][
                    :, g * og : (g + 1) * og
                ].astype(np.float64)
    return out


#: Sizes, window, channels, outputs, and what is not plain. The first ones reach every branch of the
#: kernels: lines and places, strips that cross lines and images, several steps of k, of columns.
CASES = [
    ((7, 9), (3, 3), 4, 5, {"padding": ((1, 1), (1, 2))}),
    ((7, 9), (3, 3), 20, 37, {"padding": ((1, 1), (1, 2))}),
    ((6, 5), (3, 2), 20, 70, {"strides": (2, 3), "padding": ((1, 1), (1, 2))}),
    ((7, 9), (3, 2), 18, 12, {"strides": (2, 1), "rhs": (1, 2), "groups": 3}),
    ((20, 20), (7, 5), 50, 10, {"padding": ((1, 1), (1, 1))}),
    ((4, 4), (3, 3), 1300, 10, {"padding": ((1, 1), (1, 1))}),
    ((9,), (3,), 3, 12, {"padding": ((2, 1),)}),
    ((5, 4, 6), (3, 2, 3), 17, 12, {"padding": ((2, 1), (0, 0), (1, 1))}),
    ((5, 4, 3), (3, 2, 3), 3, 2, {"strides": (2, 1, 1)}),
    ((7, 6), (1, 1), 5, 6, {}),
    ((7, 6), (1, 1), 5, 6, {"strides": (2, 3)}),
    ((7, 6), (3, 3), 5, 5, {"groups": 5, "padding": ((1, 1), (1, 0))}),
    ((7, 6), (3, 2), 5, 10, {"groups": 5, "strides": (2, 1), "rhs": (2, 1)}),
    ((7, 6), (3, 3), 17, 10, {"lhs": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((7, 6), (3, 2), 6, 10, {"lhs": (2, 3), "rhs": (2, 1), "padding": ((1, 1), (-1, 1)),
                                 "groups": 2}),
    ((7, 6), (3, 4), 7, 3, {"lhs": (2, 4), "rhs": (1, 2), "padding": ((1, 1), (3, 1))}),
    ((7, 6), (3, 2), 7, 10, {"lhs": (2, 1), "strides": (3, 2), "padding": ((1, 1), (-1, 1))}),
    ((9, 8), (11, 10), 5, 5, {"groups": 5, "padding": ((5, 5), (5, 5))}),
    ((5, 4), (3, 3), 550, 550, {"groups": 550, "padding": ((1, 1), (1, 1))}),
    ((33, 28), (3, 3), 40, 40, {"groups": 40, "padding": ((1, 1), (1, 1)), "strides": (2, 2)}),
    ((28, 33), (3, 3), 20, 9, {"padding": ((1, 1), (1, 1))}),
    ((3, 3), (6, 5), 17, 10, {"padding": ((1, 1), (1, 1))}),
    ((3, 3), (5, 5), 17, 10, {"padding": ((1, 1), (1, 1))}),
]  # fmt: skip


def prepared(case, dtype, batch=2):
    sizes, window, channels, outputs, given = case
    rank = len(sizes)
    rng = np.random.default_rng(0)
    ones = (1,) * rank
    attrs = {
        "strides": given.get("strides", ones),
        "padding": given.get("padding", ((0, 0),) * rank),
        "lhs_dilation": given.get("lhs", ones),
        "rhs_dilation": given.get("rhs", ones),
        "groups": given.get("groups", 1),
    }
    x = rng.normal(size=(batch, *sizes, channels)).astype(dtype)
    w = rng.normal(size=(*window, channels // attrs["groups"], outputs)).astype(dtype)
    return x, w, attrs


def close(got, want, dtype, terms):
    scale = np.abs(want).max(initial=1.0)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got, want, rtol=0, atol=scale * np.finfo(dtype).eps * (8 + terms**0.5)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_compute_the_definition(case):
    """The op, its two gradients, compiled, in both float types; one graph for all three."""
    for dtype in (np.float32, np.float64):
        x, w, attrs = prepared(case, dtype)
        exact = by_loops(x, w, *attrs.values())
        g = np.random.default_rng(1).normal(size=exact.shape).astype(dtype)

        def everything(x, w, g, attrs=attrs):
            out, pull = gd.vjp(lambda x, w: convolve(x, w, **attrs), x, w)
            return out, *pull(g)

        out, dx, dw = gd.compile(everything)(x, w, g)
        terms = max(w[..., 0].size, out[..., 0].size)
        close(out, exact, dtype, terms)
        # <g, conv(x, w)> is linear in each operand: its gradients give it back
        total = np.vdot(g.astype(np.float64), exact)
        bound = np.finfo(dtype).eps * np.abs(g).sum() * np.abs(exact).max(initial=1.0) * 8
        assert abs(np.vdot(dx.astype(np.float64), x) - total) <= bound
        assert abs(np.vdot(dw.astype(np.float64), w) - total) <= bound
        window = w.shape[:-2]
        close(
            dw,
            filter_gradient(*(v.astype(float) for v in (x, g)), window=window, **attrs),
            dtype,
            terms,
        )
        reference = gd.trace(everything, *(v.astype(np.float64) for v in (x, w, g)))
        close(dx, reference.evaluate(*(v.astype(np.float64) for v in (x, w, g)))[1], dtype, terms)


@pytest.mark.parametrize("case", CASES[:4] + CASES[6:8] + CASES[11:15], ids=str)
def test_text_and_cores_in_python_do_the_same(case):
    x, w, attrs = prepared(case, np.float32)
    ulps = 40 * w[..., 0].size ** 0.5
    check_compiled(lambda x, w: np.tanh(convolve(x, w, **attrs)), x, w, ulps=ulps)
    g = np.asarray(convolve(x, w, **attrs))
    check_compiled(
        lambda x, g: filter_gradient(x, g, window=w.shape[:-2], **attrs) * 2.0, x, g, ulps=400,
        separate=False,
    )  # fmt: skip


@pytest.mark.parametrize("case", [CASES[i] for i in (0, 3, 8, 10, 12, 14, 16)], ids=str)
def test_gradients_to_second_order(case):
    x, w, attrs = prepared(case, np.float64)
    gd.check_grads(lambda x, w: np.sum(np.sin(convolve(x, w, **attrs))), x, w)


@pytest.mark.parametrize("groups", [1, 2])
def test_vmap_over_either_operand_or_both(groups):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 2, 5, 6, 4)), rng.normal(size=(3, 3, 2, 4 // groups, 6))
    attrs = prepared(((5, 6), (3, 2), 4, 6, {"strides": (1, 2), "groups": groups}), float)[2]
    g = np.stack([convolve(a, b, **attrs) for a, b in zip(x, w, strict=True)])
    functions = {
        "convolve": (lambda a, b: convolve(a, b, **attrs), w),
        "filter_gradient": (lambda a, b: filter_gradient(a, b, window=(3, 2), **attrs), g),
    }
    for f, other in functions.values():
        for axes in ((0, 0), (0, None), (None, 0)):
            operands = [v if axis == 0 else v[0] for v, axis in zip((x, other), axes, strict=True)]
            examples = [
                f(*(v[i] if axis == 0 else v for v, axis in zip(operands, axes, strict=True)))
                for i in range(3)
            ]
            np.testing.assert_allclose(gd.vmap(f, in_axes=axes)(*operands), examples, atol=1e-12)


def test_per_example_gradients():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 1, 6, 6, 3)), rng.normal(size=(3, 3, 3, 2))
    gradient = gd.grad(lambda w, x: np.sum(nn.conv(x, w, padding="SAME") ** 2))
    each = gd.vmap(gradient, in_axes=(None, 0))(w, x)
    np.testing.assert_allclose(each, [gradient(w, example) for example in x])


# -- the function ----------------------------------------------------------------------------------


def test_conv_is_scipys_correlation():
    rng = np.random.default_rng(0)
    for sizes, window in (((9,), (4,)), ((6, 7), (3, 2)), ((4, 5, 6), (2, 3, 2))):
        x, w = rng.normal(size=sizes), rng.normal(size=window)
        batch, weights = x[None, ..., None], w[..., None, None]
        for mode, padding in (("valid", "VALID"), ("full", [n - 1 for n in window])):
            exact = signal.correlate(x, w, mode)
            np.testing.assert_allclose(
                nn.conv(batch, weights, padding=padding)[0, ..., 0], exact, atol=1e-12
            )


def test_same_padding_makes_as_many_places_as_strides_allow():
    for size, window, stride, dilation in itertools.product((5, 6, 7), (1, 2, 3), (1, 2), (1, 2)):
        x = np.ones((1, size, 1))
        out = nn.conv(x, np.ones((window, 1, 1)), strides=stride, padding="same", dilation=dilation)
        assert out.shape[1] == -(-size // stride)
    # the odd element of padding comes last
    np.testing.assert_array_equal(
        nn.conv(np.ones((1, 4, 1)), np.ones((2, 1, 1)), padding="SAME")[0, :, 0], [2, 2, 2, 1]
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layouts_are_transposes_of_each_other(rank):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(5, 6, 4)[:rank], 6)).astype(np.float32)
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    w = rng.normal(size=(*(3, 2, 2)[:rank], 3, 4)).astype(np.float32)
    v = rng.normal(size=(*(3, 2, 2)[:rank], 2, 6)).astype(np.float32)
    functions = (
        lambda x, layout: nn.conv(x, w, padding=1, groups=2, layout=layout),
        lambda x, layout: nn.conv_transpose(x, v, strides=2, groups=2, layout=layout),
        lambda x, layout: nn.max_pool(x, 2, layout=layout),
        lambda x, layout: nn.avg_pool(x, 3, padding="SAME", layout=layout),
        lambda x, layout: nn.adaptive_avg_pool(x, 3, layout=layout),
        lambda x, layout: nn.adaptive_max_pool(x, 3, layout=layout),
        lambda x, layout: nn.local_response_norm(x, 3, layout=layout),
        lambda x, layout: nn.resize(x, 7, layout=layout),
    )
    want = [np.moveaxis(f(x, "channels_last"), -1, 1) for f in functions]
    ways = [[f(first, "channels_first") for f in functions]]
    if rank == 2:
        ways.append(gd.compile(lambda x: [f(x, "channels_first") for f in functions])(first))
    for found in ways:
        for got, one in zip(found, want, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"strides": 2},
        {"strides": (2, 3), "padding": 1, "output_padding": (1, 2)},
        {"strides": 2, "padding": "SAME"},
        {"strides": 3, "padding": "SAME", "dilation": 2},
        {"padding": [(1, 0), 2], "dilation": (2, 1)},
    ],
    ids=str,
)
def test_the_transpose_is_the_gradient(given):
    """sum(conv(y, w) * x) = sum(y * conv_transpose(x, w)) for the shape that it gives."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 5, 4)), rng.normal(size=(3, 4, 3, 4))
    back = nn.conv_transpose(x, w, groups=2, **given)
    y = rng.normal(size=back.shape)
    rest = {key: value for key, value in given.items() if key != "output_padding"}
    forward = nn.conv(y, w, groups=2, **rest)
    assert forward.shape == x.shape
    assert np.vdot(forward, x) == pytest.approx(np.vdot(y, back))
    np.testing.assert_allclose(
        gd.compile(lambda x, w: nn.conv_transpose(x, w, groups=2, **given))(x, w), back
    )


def test_transposed_convolution_has_gradients():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(3, 2, 3, 2))
    f = lambda x, w: np.sum(np.sin(nn.conv_transpose(x, w, strides=2, padding=1)))  # noqa: E731
    gd.check_grads(f, x, w)
    values = gd.compile(gd.grad(f, argnums=(0, 1)))(x, w)
    for got, want in zip(
        values, gd.trace(gd.grad(f, argnums=(0, 1)), x, w).evaluate(x, w), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_mixed_dtypes_promote_and_integers_are_floats():
    x, w = np.arange(6).reshape(1, 6, 1), np.ones((2, 1, 1), np.float32)
    assert nn.conv(x, w).dtype == np.float64
    assert nn.conv(x.astype(np.float32), w).dtype == np.float32
    compiled = gd.compile(nn.conv)
    np.testing.assert_array_equal(compiled(x, w), nn.conv(x, w))


# -- fusion and other forms ------------------------------------------------------------------------


def names(f, *args):
    return [
        [node.op.name for node in group.nodes] if hasattr(group, "nodes") else group.name
        for group in lower(f, *args).kernels
    ]


def test_bias_and_activation_are_one_kernel_with_the_convolution():
    x, w = np.ones((2, 8, 8, 20), np.float32), np.ones((3, 3, 20, 40), np.float32)
    bias, residual = np.ones(40, np.float32), np.ones((2, 8, 8, 40), np.float32)
    executable = lower(
        lambda x, w, b, r: np.maximum(nn.conv(x, w, padding=1) + b + r, 0), x, w, bias, residual
    )
    assert len(executable.kernels) == 1
    np.testing.assert_allclose(executable(x, w, bias, residual)[0, 4, 4], 182.0)


def test_operands_that_rows_cannot_walk_stay_outside():
    """A factor for each image, a transposed residual, a position: right, if in another kernel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 6, 20)).astype(np.float32)
    w = rng.normal(size=(3, 3, 20, 8)).astype(np.float32)
    scale, turned = rng.normal(size=(3, 1, 1, 1)), rng.normal(size=(3, 6, 4, 8))
    check_compiled(
        lambda x, w, s, t: nn.conv(x, w, padding=1) * s + np.swapaxes(t, 1, 2),
        x, w, scale.astype(np.float32), turned.astype(np.float32), ulps=100,
    )  # fmt: skip
    check_compiled(
        lambda x, w: nn.conv(x, w, padding=1) + np.arange(8, dtype=np.float32), x, w, ulps=100
    )


def forms(f, *args):
    graph = pipeline.optimise(gd.trace(f, *args))[-1][1]
    return [node.op.name for node in graph.operations]


def test_other_forms():
    x = np.ones((2, 6, 6, 4), np.float32)
    pointwise = forms(lambda x, w: nn.conv(x, w), x, np.ones((1, 1, 4, 3), np.float32))
    assert "contract" in pointwise
    assert "convolve" not in pointwise
    twice = forms(lambda x, w: nn.conv(x, w, groups=4), x, np.ones((3, 3, 1, 8), np.float32))
    assert twice.count("convolve") == 2
    empty = forms(lambda x, w: nn.conv(x, w), x[:0], np.ones((3, 3, 4, 2), np.float32))
    assert "convolve" not in empty
    spread = forms(
        lambda x, w: nn.conv_transpose(x, w, strides=2), x, np.ones((3, 3, 2, 4), np.float32)
    )
    assert spread.count("convolve") + spread.count("contract") == 4


# -- what kernels promise --------------------------------------------------------------------------


def test_cuts_and_threads_change_no_bit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 14, 13, 24)).astype(np.float32)
    w = rng.normal(size=(3, 3, 24, 40)).astype(np.float32)

    def everything(x, w):
        out, pull = gd.vjp(lambda x, w: nn.conv(x, w, padding=1), x, w)
        return out, pull(out)

    compiled = gd.compile(everything)
    first = bits(compiled(x, w))
    with pytest.MonkeyPatch.context() as patch:
        for cores_ in (1, 7):
            patch.setattr(product, "cores", lambda cores_=cores_: cores_)
            again = gd.compile(lambda x, w: everything(x, w))
            assert bits(again(x, w)) == first


def test_images_do_not_depend_on_how_many_there_are():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 7, 9, 20)).astype(np.float32)
    w = rng.normal(size=(3, 3, 20, 33)).astype(np.float32)
    f = gd.compile(lambda x, w: nn.conv(x, w, padding=1))
    whole = f(x, w)
    for count in (1, 2, 3):
        np.testing.assert_array_equal(f(x[:count], w), whole[:count])


def test_nothing_outside_the_input_counts():
    """NaN around the arguments in memory, and in them: it stays where windows meet it."""
    rng = np.random.default_rng(0)
    for channels in (3, 20):
        memory = np.full((4, 9, 9, channels), np.nan, np.float32)
        x = memory[1:3, 1:8, 1:8]
        x[...] = rng.normal(size=x.shape)
        w = rng.normal(size=(3, 3, channels, 5)).astype(np.float32)
        f = gd.compile(lambda x, w: nn.conv(x, w, padding=1))
        assert np.isfinite(f(np.ascontiguousarray(x), w)).all()
        x[0, 3, 3, 0] = np.nan
        out = np.isnan(f(np.ascontiguousarray(x), w)).any(axis=-1)
        expected = np.zeros_like(out)
        expected[0, 2:5, 2:5] = True
        np.testing.assert_array_equal(out, expected)


def test_a_new_batch_size_compiles_nothing():
    w = np.ones((3, 3, 20, 8), np.float32)
    f = gd.compile(lambda x, w: np.tanh(nn.conv(x, w, padding=1)))
    texts = [
        [kernel.source for kernel in f.lower(np.ones((n, 6, 6, 20), np.float32), w).kernels]
        for n in (1, 5)
    ]
    without_comments = [
        ["\n".join(l for l in text.splitlines() if not l.startswith("#")) for text in some]  # noqa: E741
        for some in texts
    ]
    assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("size", "many", "fused"), [(32, False, True), (16, True, True), (16, False, False)]
)
def test_other_registers(monkeypatch, dtype, size, many, fused):
    """What is written for AVX2, NEON and SSE2 computes the same, compiled for this CPU."""
    element = np.dtype({"f32": np.float32, "f64": np.float64}[dtype])
    registers = Registers(dtype, size // element.itemsize, many, fused)
    for module in (product, kernels, patches, depthwise):
        monkeypatch.setattr(module, "host_registers", lambda _: registers)
    addresses = {}
    for kind, text in (
        ("convolve", kernels.convolve_ir),
        ("filter_gradient", kernels.filter_gradient_ir),
        ("depthwise", depthwise.depthwise_ir),
        ("depthwise_gradient", depthwise.depthwise_gradient_ir),
    ):
        symbol = f"{kind}_{dtype}_{size}_{many}"
        code = llvm.object_code_of_core(text(dtype, symbol))
        addresses[f"{kind} {dtype}"] = loading.load({symbol: code})[symbol]
    monkeypatch.setattr(cores, "address", addresses.__getitem__)
    for number in (1, 2, 3, 6, 11):
        x, w, attrs = prepared(CASES[number], element)
        g = np.asarray(convolve(x, w, **attrs))
        got = gd.compile(lambda x, w, attrs=attrs: convolve(x, w, **attrs))(x, w)
        close(got, by_loops(x, w, *attrs.values()), element, w[..., 0].size)
        window = w.shape[:-2]
        exact = filter_gradient(x.astype(float), g.astype(float), window=window, **attrs)
        found = gd.compile(
            lambda x, g, window=window, attrs=attrs: filter_gradient(x, g, window=window, **attrs)
        )(x, g)
        close(found, exact, element, g[..., 0].size)


def test_scratch_suffices():
    """Whatever the sizes, what the cores keep on their stacks fits there."""
    for dtype, size in (("f32", 4), ("f64", 8)):
        panel = tiles.host_registers(dtype).panel
        for window, channels, outputs in itertools.product(
            (1, 3, 11), (1, 3, 64, 700), (1, 64, 2000)
        ):
            axis = Axis(32, window, 1, 1, 1, 1, 1)
            what = patches.Convolution(dtype, 4, (axis, axis), 1, channels, outputs)
            table, _ = kernels.convolve_table(what, [])
            first = table[patches.GEOMETRY] + patches.FIRST_STEP
            steps = np.reshape(table[first:][: 4 * table[patches.STEPS]], (-1, 4))
            deepest = (steps[:, 1] * steps[:, 2]).max()
            width = -(-table[patches.COLUMNS] // panel) * panel
            assert deepest * width * size <= product.PANELS_BYTES
            rows = 12 if len(steps) == 1 else table[patches.ROWS]
            assert rows * width * size <= product.SUMS_BYTES
            assert steps[:, 1].max() <= patches.MOST_SEGMENTS
            assert steps[:, 2].max() <= patches.LONGEST
            assert (steps[:, 1] * steps[:, 2]).sum() == window**2 * channels
            table, _ = kernels.filter_gradient_table(what, [])
            steps = np.reshape(table[first:][: 4 * table[patches.STEPS]], (-1, 4))
            width = -(-table[patches.COLUMNS] // panel) * panel
            strips = -(-table[patches.DEPTH] // tiles.STRIP)
            assert table[patches.DEPTH] * width * size <= product.PANELS_BYTES
            assert (steps[:, 1] * steps[:, 2]).max() * width * size <= product.SUMS_BYTES
            assert steps[:, 1].max() * strips * patches.ROW <= kernels.FOUND_BYTES
            assert (steps[:, 1] * steps[:, 2]).sum() == window**2 * channels


# -- errors ----------------------------------------------------------------------------------------

X, W = np.ones((2, 6, 6, 4)), np.ones((3, 3, 4, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.conv(X[0, 0], W), ShapeError, r"conv takes a batch of shape \(batch, \*sizes"),
        (lambda: nn.conv(X, W[0]), ShapeError, "2 spatial axes the weights have shape"),
        (lambda: nn.conv(X, W[:, :, :3]), ShapeError, "do not fit 4 channels in 1 groups"),
        (lambda: nn.conv(X, W, groups=3), ShapeError, "in 3 groups"),
        (lambda: nn.conv(X, W, strides=0), ArgumentError, "strides=0"),
        (lambda: nn.conv(X, W, strides=(1, 1, 1)), ArgumentError, "for 2 spatial axes"),
        (lambda: nn.conv(X, W, padding="half"), ArgumentError, '"SAME", "VALID"'),
        (lambda: nn.conv(X, W, padding=((1, 1, 1), 0)), ArgumentError, "pairs"),
        (lambda: nn.conv(X, W, dilation=1.5), DtypeError, "dilation must be an integer"),
        (lambda: nn.conv(X, W, layout="NHWC"), ArgumentError, "channels_last or channels_first"),
        (lambda: nn.conv(X, W[:0]), ShapeError, "is empty"),
        (lambda: nn.conv_transpose(X, W), ShapeError, "x has 4 channels, not 8"),
        (
            lambda: nn.conv_transpose(X, np.ones((3, 3, 8, 4)), strides=2, output_padding=2),
            ArgumentError,
            "less than the strides",
        ),
        (
            lambda: nn.conv_transpose(X, np.ones((3, 3, 8, 4)), padding=9),
            ArgumentError,
            "leaves sizes",
        ),
    ],
)
def test_errors_say_what_fits(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- layers ----------------------------------------------------------------------------------------

LAYERS = [
    (nn.Conv1D(6, 3, strides=2, padding="same", activation="relu"), (9, 4)),
    (nn.Conv2D(6, (3, 2), dilation=2, groups=2), (8, 9, 4)),
    (nn.Conv2D(6, 3, layout="channels_first", padding=1), (4, 8, 9)),
    (nn.Conv3D(2, 2, use_bias=False), (3, 4, 5, 2)),
    (nn.ConvTranspose1D(3, 4, strides=2, padding=1), (6, 2)),
    (nn.ConvTranspose2D(4, 3, strides=2, padding="same", groups=2), (5, 4, 6)),
    (nn.ConvTranspose2D(4, 3, strides=(2, 3), output_padding=(1, 2)), (5, 4, 6)),
    (nn.ConvTranspose2D(4, 3, layout="channels_first"), (6, 5, 4)),
    (nn.ConvTranspose3D(1, 2, strides=2), (2, 3, 2, 2)),
    (nn.DepthwiseConv1D(3, padding="same"), (7, 3)),
    (nn.DepthwiseConv2D(3, depth_multiplier=2, strides=2), (7, 8, 3)),
    (nn.MaxPool(3, strides=2, padding="same"), (7, 8, 3)),
    (nn.AvgPool(2), (6, 8, 3)),
    (nn.AvgPool(3, strides=1, padding=1, layout="channels_first"), (3, 6, 8)),
    (nn.AdaptiveAvgPool(3), (7, 8, 2)),
    (nn.AdaptiveMaxPool((3, 2)), (7, 8, 2)),
    (nn.GlobalAvgPool(), (7, 8, 2)),
    (nn.GlobalMaxPool(layout="channels_first"), (2, 7, 8)),
    (nn.LocalResponseNorm(3), (4, 5, 6)),
    (nn.Resize((5, 9)), (4, 5, 2)),
    (nn.Upsample((2, 3), method="linear"), (4, 5, 2)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: repr(v)[:60])
def test_a_layer_has_the_shape_it_says_and_is_the_same_compiled(layer, shape):
    params = layer.init(0, shape)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    plain = layer.apply(params, x)
    assert plain.shape == (3, *layer.output_shape(shape))
    assert plain.dtype == np.float32
    np.testing.assert_allclose(gd.compile(layer.apply)(params, x), plain, rtol=1e-4, atol=1e-5)


def test_a_network_learns():
    """A small LeNet tells bars that lie from bars that stand."""
    rng = np.random.default_rng(0)
    x = np.zeros((64, 8, 8, 1), np.float32)
    labels = rng.integers(0, 2, 64)
    for image, label in zip(x, labels, strict=True):
        place = rng.integers(0, 8)
        image[(place, slice(None)) if label else (slice(None), place)] = 1.0
    model = nn.Sequential([
        nn.Conv2D(4, 3, padding="same", activation="relu"), nn.MaxPool(2),
        nn.Conv2D(8, 3, activation="relu"), nn.Flatten(), nn.Dense(2),
    ])  # fmt: skip
    assert "conv2d_1" in model.summary((8, 8, 1))
    params = model.init(0, (8, 8, 1))

    def loss(params):
        return gd.losses.softmax_cross_entropy(model.apply(params, x), labels)

    @gd.compile
    def step(params):
        value, slope = gd.value_and_grad(loss)(params)
        return value, {
            layer: {key: p - 0.3 * slope[layer][key] for key, p in values.items()}
            for layer, values in params.items()
        }

    losses = []
    for _ in range(60):
        value, params = step(params)
        losses.append(float(value))
    assert losses[-1] < 0.05 < losses[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2D(0, 3), ValueError, "at least one filter"),
        (lambda: nn.Conv2D(4, (3, 3, 3)), ArgumentError, "for 2 spatial axes"),
        (lambda: nn.Conv2D(4, 3).init(0, (5, 3)), ShapeError, r"\(size0, size1, channels\)"),
        (lambda: nn.Conv2D(4, 3, groups=2).init(0, (5, 5, 3)), ShapeError, "groups=2"),
        (lambda: nn.ConvTranspose2D(3, 3, groups=2).init(0, (5, 5, 4)), ShapeError, "groups=2"),
        (lambda: nn.MaxPool(2).output_shape((5,)), ShapeError, "MaxPool takes examples"),
    ],
)
def test_layers_refuse_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
