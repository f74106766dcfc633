"""NumPy's functions on traced values: a table of calls, each against plain NumPy, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

import graphdl as gd
from graphdl.errors import ConcreteValueError, DtypeError
from tests.helpers import call_of, check

CALLS = """
# where, clip, rounding
np.where(b, x, y)            np.where(x > y, x, 1)         np.where(b, 1.5, i)
np.where(b, 2, 3)            np.where(x, 1.0, y)           np.where(b[0], x, z[:, None])
np.where(b, i8, 300)         np.where(True, x, 1)          np.select([x > 1, x < 0], [x, i], 7)
np.clip(x, -1, 1)            np.clip(x, None, 0.5)         np.clip(x, y, z[:, None] + 1)
np.clip(i8, -1, 300)         x.clip(min=0)                 x.clip(-0.5, 0.5)
np.clip(x, min=0, max=1)     np.clip(i, 0.5, 2)            np.clip(n, -1, 1)
np.clip(x, 1, -1)            np.clip(x)                    np.clip(i8, -1000, 0)
np.round(x)                  np.round(x, 2)                x.round(-1)
np.round(i, -1)              np.around(i, 2)               np.fix(x)
np.nan_to_num(n)             np.nan_to_num(n, nan=1, posinf=2, neginf=-3)
np.isclose(x, y)             np.isclose(n, n, equal_nan=True)   np.isclose(x, x + 1e-9)
np.isclose(i, 2)             np.allclose(x, x)             np.array_equal(x, y)
np.array_equal(x, x)         np.array_equal(x, z)          np.sinc(x)
np.real(x)                   np.imag(x)                    np.isreal(x)
np.isposinf(n)               np.isneginf(n)                np.iscomplex(x)
# casts
x.astype(np.float32)         x.astype(int)                 i.astype(bool)
b.astype("uint8")            x.astype("float64", copy=False)    n.astype(bool)
# ufuncs that are more than one op
divmod(x, y)                 np.divmod(i, 3)               np.modf(x)
np.frexp(x)                  np.modf(i)                    +x
np.positive(i)               np.conjugate(x)               np.conj(i)
np.float_power(abs(x), 2)    np.float_power(i, 2)          np.degrees(x)
np.radians(x)                divmod(7, i + 20)             x.conj()
np.add.outer(z, v)           np.subtract.outer(x, v)       np.multiply.outer(2, v)
np.add.reduce(x)             np.add.reduce(x, axis=None)   np.maximum.reduce(x, axis=1)
np.multiply.reduce(x, 1, keepdims=True)  np.logical_and.reduce(x)  np.bitwise_or.reduce(b)
np.add.accumulate(x)         np.maximum.accumulate(x, 1)   np.minimum.accumulate(i)
np.logical_or.reduce(x, axis=1)          np.add.reduce(x, dtype="float64")
np.sin(x, dtype=np.float64)  np.add(i, 1, dtype=np.float64)
# sums and products
np.sum(x)                    np.sum(x, 1)                  np.sum(c, (0, 2))
np.sum(c, axis=(-1, 0), keepdims=True)   np.sum(x, axis=())     np.sum(b)
x.sum(axis=-1)               x.sum(0, keepdims=True)       np.sum(i8)
np.sum(u)                    np.sum(i8, dtype=np.int8)     np.sum(x, dtype=np.float64)
np.sum(x, initial=5)         np.sum(x, where=b)            np.sum(x, axis=1, where=b[0])
np.sum(s)                    np.sum(o)                     np.sum(o, axis=0)
np.sum(o, axis=1)            np.sum(c, axis=None)          np.sum(i, dtype=bool)
np.prod(p)                   np.prod(p, axis=0)            np.prod(i8, axis=1)
np.prod(o)                   np.prod(p, where=b)           p.prod(axis=(0, 1))
np.cumsum(p)                 np.cumsum(x, axis=0)          np.cumsum(b, axis=1)
x.cumsum(axis=-1)            np.cumsum(i8)                 np.cumsum(s)
np.cumprod(p, axis=1)        np.cumprod(i)                 np.cumsum(o)
np.nansum(n)                 np.nansum(n, axis=1)          np.nanprod(n)
np.nancumsum(n)              np.count_nonzero(x)           np.count_nonzero(i, axis=1)
np.count_nonzero(b, 0, keepdims=True)    np.sum(x, 1, None, None, True)
# extrema
np.max(x)                    np.max(c, axis=(1, 2))        np.min(x, 0, keepdims=True)
np.amax(x, axis=1)           np.amin(x)                    np.max(n)
np.min(n, axis=0)            x.max(axis=-2)                x.min()
np.max(x, initial=100)       np.max(x, initial=0, where=b)  np.max(o, axis=2)
np.max(o, axis=0, initial=3)  np.max(b)               np.max(i8, axis=0)
np.ptp(x)                    np.ptp(x, axis=1)             np.ptp(i8, 0, keepdims=True)
np.nanmax(n)                 np.nanmin(n, axis=1)          np.max(s)
np.argmax(x)                 np.argmin(x, axis=0)          np.argmax(c, -1, keepdims=True)
np.argmax(n)                 np.argmin(n, axis=1)          x.argmax(1)
np.argmax(b, axis=1)         np.argmax(x, keepdims=True)   np.argmin(s)
np.argmax(x * 0, axis=1)
# any, all
np.any(b)                    np.all(b, axis=1)             np.any(x > 1, 0, keepdims=True)
b.any()                      b.all(axis=0)                 np.any(x)
np.all(x, axis=(0, 1))       np.any(n)                     np.all(i)
np.any(b, where=x > 0)       np.all(b, where=x > 0)        np.any(o)
np.all(o, axis=0)
# means
np.mean(x)                   np.mean(c, (0, 2))            x.mean(axis=1, keepdims=True)
np.mean(i)                   np.mean(b)                    np.mean(x, dtype=np.float64)
np.mean(x, where=b)          np.mean(x, axis=0, where=b)   np.mean(o)
np.var(x)                    np.var(x, axis=1, ddof=1)     np.var(c, (0, 1), keepdims=True)
np.var(i)                    np.std(x)                     np.std(x, 0, ddof=1)
x.std(axis=1)                x.var()                       np.var(x, correction=1)
np.var(x, axis=1, mean=np.mean(x, 1, keepdims=True))       np.std(x, axis=0, where=b)
np.var(o)                    np.var(z[:1], ddof=1)         np.average(x)
np.average(x, axis=0)        np.average(x, weights=y**2)   np.average(x, 1, v**2)
np.average(x, axis=1, weights=v**2, returned=True)         np.nanmean(n)
np.nanmean(n, axis=0)        np.average(c, (0, 1), weights=y[:2, :3]**2)
# shapes
np.reshape(x, (4, 3))        x.reshape(2, -1)              x.reshape((-1,))
np.reshape(x, -1)            np.reshape(x, (2, 6), order="F")   np.reshape(s, (1, 1))
x.reshape(3, 1, 4)           o.reshape(4, -1, 5)           x.reshape([2, 2, 3])
np.ravel(x)                  x.ravel()                     np.ravel(x, "F")
x.flatten()                  np.ravel(s)                   np.ravel(o)
x.T                          c.T                           c.mT
np.transpose(c, (1, 2, 0))   c.transpose(0, 2, 1)          c.transpose((2, 0, 1))
c.transpose()                np.transpose(x)               np.permute_dims(c, (0, -1, 1))
np.matrix_transpose(c)       np.swapaxes(c, 0, -1)         c.swapaxes(1, 2)
np.moveaxis(c, 0, -1)        np.moveaxis(c, [0, 1], [-1, 0])    np.moveaxis(c, -1, 1)
np.rollaxis(c, 2)            np.rollaxis(c, 1, 3)          np.rollaxis(c, 0, -1)
np.broadcast_to(v, (3, 4))   np.broadcast_to(z[:, None], (2, 3, 4))    np.broadcast_to(s, 3)
np.broadcast_arrays(x, v, 1.5)           np.broadcast_arrays(z[:, None], v)
np.expand_dims(x, 0)         np.expand_dims(x, (0, -1))    np.expand_dims(s, 0)
np.squeeze(x[None, :, :1])   np.squeeze(x[None], 0)        x[:, None].squeeze(axis=1)
np.squeeze(x[None, :, None], (0, -2))    np.squeeze(x)
np.atleast_1d(s)             np.atleast_2d(v)              np.atleast_3d(x)
np.atleast_3d(v)             np.atleast_3d(s)              np.atleast_1d(s, x)
np.copy(x)                   x.copy()                      np.atleast_2d(s, 3)
# joining
np.concatenate([x, y])       np.concatenate((x, y, x[:, :1]), axis=-1)   np.concatenate([x, i])
np.concatenate([x, y], axis=None)        np.concatenate([x, np.ones((2, 4))])
np.concatenate([v, [1, 2]])  np.concatenate([x, o[:, :, :4][0]])
np.concatenate([x, i8], dtype=int, casting="unsafe")
np.stack([x, y])             np.stack([x, y], axis=1)      np.stack((v, [1, 2, 3, 4]), -1)
np.stack([s, 1.0, 2])        np.stack(list(x))             np.stack(x, axis=1)
np.hstack([x, y])            np.hstack([v, z])             np.vstack([v, x])
np.dstack([x, y])            np.column_stack([z, x, z])    np.dstack([v, v])
np.append(x, y)              np.append(x, y, axis=0)       np.hstack([s, s])
np.block([[x, z[:, None]], [v, s]])      np.block([x, y])  np.vstack([x, y], dtype="float64")
np.concatenate([b, b])       np.stack([b, x])
# cutting
np.split(x, 2, axis=1)       np.split(x, 3)                np.split(v, [1, 3])
np.split(x, [1, 2], -1)      np.array_split(v, 3)          np.array_split(x, 2)
np.hsplit(x, 2)              np.vsplit(x, 3)               np.dsplit(c, [1])
np.split(v, [3, 1])          np.array_split(z, 5)          np.hsplit(v, [2])
np.split(v, [-1])            np.split(v, [2, 9])           np.unstack(x, axis=1)
list(x)                      [row.sum() for row in x]
# order
np.flip(x)                   np.flip(c, (0, -1))           np.flip(x, 1)
np.fliplr(x)                 np.flipud(x)                  np.rot90(x)
np.rot90(x, 2)               np.rot90(c, -1, (1, 2))       np.rot90(x, 3)
np.roll(x, 1)                np.roll(x, -1, axis=0)        np.roll(x, (1, 2), axis=(0, 1))
np.roll(x, 7, 1)             np.roll(c, 1, (0, 2))         np.roll(o, 1)
np.roll(x, (1, 2), axis=1)   np.roll(x, 0)
# repeating
np.tile(x, 2)                np.tile(v, (2, 3))            np.tile(c, (2, 1))
np.repeat(x, 2)              np.repeat(x, 3, axis=1)       np.repeat(x, [1, 0, 2], axis=0)
x.repeat(2, axis=0)          np.repeat(x, 0, 1)            np.tile(s, 3)
np.repeat(v, [2, 2, 0, 1])   np.repeat(z, [2])             np.repeat(s, 2)
np.tile(x, ())               np.repeat(z, [0, 0, 0])       np.tile(x, 0)
np.pad(x, 1)                 np.pad(x, ((1, 2), (0, 1)))   np.pad(v, (2, 3), constant_values=5)
np.pad(x, 1, constant_values=((1, 2), (3, 4)))             np.pad(x, (1, 2), "edge")
np.pad(x, 2, mode="reflect")  np.pad(x, ((1, 0), (2, 1)), "symmetric")    np.pad(v, 3, "wrap")
np.pad(x, 7, "reflect")      np.pad(o, 1)                  np.pad(b, 1, constant_values=True)
np.pad(i, ((0, 0), (1, 1)))  np.pad(x, 0)                  np.pad(v, (0, 2), "edge")
# picking
np.take(x, 1, axis=0)        np.take(x, [2, 0, 2], axis=1)  np.take(x, [[0, 11], [5, -1]])
x.take([0, 1])               np.take(x, i, mode="wrap")    np.take(v, [9, -9], mode="clip")
np.take(x, np.array([[0, 1]]), axis=-1)  np.take(c, k, axis=1)
np.take_along_axis(x, np.argsort([[0, 3, 1, 2]] * 3), 1)   np.take_along_axis(x, k[:, None], 1)
np.take_along_axis(x, np.argmax(x, axis=0)[None], axis=0)  np.take_along_axis(v, k, None)
np.take_along_axis(x, np.argmax(x, 1, keepdims=True), -1)
np.take_along_axis(x, k[None, :, None][0].repeat(2, 1), 1)
np.compress([True, False, True], x, axis=0)                x.compress([0, 1, 1])
np.delete(x, 1, axis=0)      np.delete(x, [0, -1], 1)      np.delete(v, slice(1, 3))
# diagonals and triangles
np.diagonal(x)               np.diagonal(x, 1)             np.diagonal(x, -1)
x.diagonal()                 np.diagonal(c, 0, 1, 2)       np.diagonal(c, 1, 2, 0)
np.diagonal(x, 9)            np.trace(x)                   np.trace(c, 1, 0, 2)
x.trace()                    np.trace(i8)                  np.diag(v)
np.diag(v, 2)                np.diag(v, -1)                np.diag(x, 1)
np.diagflat(x)               np.tril(x)                    np.triu(x, 1)
np.tril(c, -1)               np.triu(v)                    np.tril(i8, 1)
np.triu(b)                   np.diag(o[0, :, 0])
# differences
np.diff(x)                   np.diff(x, axis=0)            np.diff(x, 2)
np.diff(x, prepend=0, append=x[:, :1])   np.diff(b)        np.diff(v, 4)
np.diff(v, 5)                np.ediff1d(x)                 np.ediff1d(v, to_end=[1, 2], to_begin=0)
np.diff(x, 0)
# creation and questions
np.zeros_like(x)             np.ones_like(i)               np.full_like(x, 7)
np.empty_like(x).shape         np.zeros_like(x, dtype=int)   np.ones_like(x, shape=(2, 2))
np.full_like(i, 2.7)         np.full_like(x, v)            np.zeros_like(b)
np.ones_like(x, bool)  np.full_like(x, 3, dtype="int8")
np.linspace(s, 2, 5)         np.linspace(0, v, 3)          np.linspace(s, 2, 4, endpoint=False)
np.linspace(v, 1, 1)         np.linspace(0, v, 3, axis=1)  np.linspace(0, 10 + s, 7, dtype=int)
np.linspace(v, 1, 4, retstep=True)       np.meshgrid(v, z)  np.meshgrid(v, z, indexing="ij")
np.meshgrid(v, z, sparse=True)           np.meshgrid(v)    np.meshgrid(v, z, k)
x * np.ndim(x)               x + np.shape(x)[0]            x * np.size(x, 1)
x.astype(np.result_type(x, i))           x * x.size        x * len(x)
x * np.iscomplexobj(x)       x * np.isscalar(x)            x * np.can_cast(x, np.int8)
x.astype(np.common_type(x, i))           np.array([s, [1.0, 2.0][0]], like=s)
np.array([[s, 1], [2, s]], like=s)       np.asarray(1, like=x)
# products that round alike
np.outer(x, v)               np.kron(x, v)                 np.kron(v, z)
np.dot(x, 2)                 np.dot(s, x)                  np.inner(x, s)
np.cross(x[:, :3], y[:, :3])  np.einsum("i,j->ij", z, v)    np.einsum("ij->ji", x)
np.einsum("ij", x)           np.einsum("ji", x)            np.einsum("ii->i", w)
np.einsum("...ij->...ji", c)  np.linalg.outer(z, v)
"""

#: Products: in whole numbers, so that any order of summation is exact.
PRODUCTS = """
x @ m                        np.matmul(x, v)               np.matmul(z, x)
v @ v                        c @ m                         c @ c.mT
np.matmul(m, c)              x @ c.mT                      np.matmul(c[:1], c.mT)
c[:, None] @ c.mT            v @ c.mT                      c @ v
x @ np.eye(4)                np.eye(3) @ x                 [1, 2, 3] @ x
o[..., 0].T @ x              x[:, :0] @ m[:0]              x @ m[:, :0]
np.dot(x, m)                 np.dot(x, v)                  x.dot(v)
np.dot(v, v)                 np.dot(c, c.mT)               np.dot(c, m)
np.inner(x, y)               np.inner(v, v)                np.inner(c, v)
np.vdot(x, y)                np.tensordot(x, m, 1)         np.tensordot(x, y)
np.tensordot(c, c, ([1, 2], [1, 2]))     np.tensordot(c, x, ((2,), (1,)))    np.tensordot(x, v, 0)
np.tensordot(c, m, axes=(-1, 0))         np.vecdot(x, y)   np.vecdot(c, v)
np.matvec(c, v)              np.matvec(x, c[0, 0])         np.vecmat(z, c)
np.linalg.matmul(x, m)       np.linalg.multi_dot([z, x, m, z])    np.linalg.vecdot(x, y, axis=0)
np.linalg.multi_dot([x, m])  np.linalg.tensordot(x, m, axes=1)    np.linalg.trace(c)
np.linalg.diagonal(c)        np.linalg.matrix_transpose(x)
np.einsum("ij,jk->ik", x, m)  np.einsum("ij,jk", x, m)      np.einsum("ij,kj", x, y)
np.einsum("ij,ij->", x, y)   np.einsum("ij->j", x)         np.einsum("ij->", x)
np.einsum("ii", w)           np.einsum("ii,i->", w, z)     np.einsum("iij->j", c[:, :2])
np.einsum("bij,bkj->bik", c, c)          np.einsum("bij,jk,kl->bil", c, m, x)
np.einsum("...ij,...jk", c, m)  np.einsum("...j,j", c, v)  np.einsum("b...,b...->...", c, c)
np.einsum("ij,j,k,k->i", x, v, z, z)     np.einsum("i,j,k->ikj", v, z, k)
np.einsum(x, [0, 1], m, [1, 2])          np.einsum(x, [0, 1], m, [1, 2], [2, 0])
np.einsum("ij,jk->", x, m)   np.einsum("ij,kl->il", x, m)  np.einsum("ij,ij->ij", x[:1], y)
np.einsum("i, i -> i", v, v)  np.einsum("abc,cd->abd", c, m)       np.einsum("ij,k->ijk", x, z)
np.einsum("ij,ji->i", x, m)  np.einsum("ijk,ik->kj", c, x[:2])    np.einsum(c, [..., 0], v, [0])
np.einsum("ij,jk,kl,lm->im", x, m, x, m)  np.einsum("ij,ij,ij->i", x, y, x)
np.linalg.norm(x)            np.linalg.norm(x, axis=1)     np.linalg.norm(x, ord=1, axis=0)
np.linalg.norm(v, np.inf)    np.linalg.norm(x, "fro")      np.linalg.norm(v, -np.inf, keepdims=True)
np.linalg.norm(v, 0)         np.linalg.norm(x, 2, 1, True)
"""


#: What came after NumPy 2.0.
NEWER = {
    "2.1": ("np.unstack", "np.clip(i8", "np.clip(x)", "np.clip(x, min"),
    "2.2": ("np.matvec", "np.vecmat"),
}


def calls(table: str) -> list[str]:
    """The calls of a table that this NumPy knows."""
    lines = (line for line in table.splitlines() if line and not line.startswith("#"))
    every = (call for line in lines for call in filter(None, map(str.strip, line.split("  "))))
    unknown = tuple(
        start
        for version, starts in NEWER.items()
        if np.lib.NumpyVersion(np.__version__) < f"{version}.0"
        for start in starts
    )
    return [call for call in every if not call.startswith(unknown)]


def values(dtype: str, whole: bool = False) -> dict[str, np.ndarray]:
    """The arrays that the calls name; those in `dtype`, and those of other kinds."""
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        numbers = rng.integers(-3, 4, shape) if whole else rng.normal(0, 1.5, shape)
        if dtype.startswith("u"):
            numbers = abs(numbers)
        return np.asarray(numbers).astype(dtype)

    n = np.array([[np.nan, 1, -np.inf, 0.5], [np.inf, -2, 0, -0.0], [3, 1, 2, np.nan]])
    return {
        "x": draw(3, 4),
        "y": draw(3, 4),
        "c": draw(2, 3, 4),
        "m": draw(4, 3),
        "w": draw(3, 3),
        "v": draw(4),
        "z": draw(3),
        "s": draw(),
        "o": draw(3, 0, 5),
        "p": draw(3, 4),
        "n": n.astype(dtype) if dtype.startswith("f") else draw(3, 4),
        "b": rng.random((3, 4)) < 0.6,
        "i": rng.integers(-9, 9, (3, 4)),
        "i8": rng.integers(-100, 100, (3, 4)).astype(np.int8),
        "u": rng.integers(0, 200, (3, 4)).astype(np.uint8),
        "k": np.array([2, 0, 1]),
    }


#: Where rounding may differ: sums and products in another order than NumPy's.
ROUNDED = (
    "np.cumprod", "np.linalg.norm", "np.prod", "np.sum(x, where", "np.sum(x, axis=1, where",
    "np.mean(x, where", "np.mean(x, axis=0, where", "np.std(x, axis=0, where", "np.nanmean",
    "np.linspace",
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", calls(CALLS))
def test_a_call_is_what_numpy_computes(text, dtype):
    f, args = call_of(text, values(dtype))
    check(f, args, exact=not text.startswith(ROUNDED))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("text", calls(PRODUCTS))
def test_a_product_is_what_numpy_computes(text, dtype):
    f, args = call_of(text, values(dtype, whole=True))
    check(f, args, exact=not text.startswith(ROUNDED))


#: Ufuncs of SciPy; to the last bits, as its own loops compute some of them otherwise.
SPECIAL = """
sc.expit(x)      sc.log_expit(x)  sc.logit(q)      sc.erf(x)        sc.erfc(x)
sc.ndtr(x)       sc.xlogy(x, p)   sc.xlogy(n, n)   sc.xlog1py(x, p)
sc.entr(p)       sc.entr(x)       sc.entr(n)       sc.expit(i)      sc.rel_entr(p, q)
sc.cbrt(x)       sc.log1p(p)      sc.expm1(x)      sc.exp2(x)       sc.rel_entr(n, p)
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", calls(SPECIAL))
def test_a_ufunc_of_scipy_is_what_scipy_computes(text, dtype):
    given = values(dtype)
    given["p"] = np.abs(given["p"])
    given["q"] = 1 / (1 + given["p"])
    f, args = call_of(text.strip(), given, sc=scipy.special)
    check(f, args, exact=False)


def test_rolling_by_traced_shifts():
    """Its shape is known, whatever the shift."""
    a, known = np.random.default_rng(4).normal(size=(2, 3, 4)), np.arange(5)

    def f(a, one, two):
        return (
            np.roll(a, one), np.roll(a, -one, 1), np.roll(a, (one, 1), (0, 2)),
            np.roll(a, one, (0, 2)), np.roll(a, (1, one)), np.roll(a[:, :0], one, 1),
            np.roll(a, two, (1, -1)), np.roll(known, one),
        )  # fmt: skip

    for one in (0, 5, -17):
        two = np.array([one, 3])
        for got, want in zip(gd.compile(f)(a, one, two), f(a, one, two), strict=True):
            np.testing.assert_array_equal(got, want)
    gd.check_grads(lambda a: np.roll(a, np.argmax(a[0, 0]), 2) * np.arange(4), a)
    by_rows = gd.vmap(np.roll)(a[0], np.array([1, 2, 3]))
    np.testing.assert_array_equal(by_rows, [np.roll(a[0, i], i + 1) for i in range(3)])
    with pytest.raises(DtypeError, match=r"np\.roll: a shift must be an integer, not float64"):
        gd.trace(np.roll, a, 1.0)
    with pytest.raises(gd.GraphError, match=r"3 shifts of 2 axes"):
        gd.trace(lambda a, n: np.roll(a, (n, 1, 2), (0, 1)), a, 1)


def test_splitting_where_a_traced_value_says():
    for f in (lambda x, n: np.split(x, [n]), lambda x, n: np.array_split(x, (1, n))):
        with pytest.raises(ConcreteValueError, match=r"place to split at.*np\.where\(before, x, 0"):
            gd.trace(f, np.ones(4), 2)
    with pytest.raises(ConcreteValueError, match="the number of sections is a traced value"):
        gd.trace(np.split, np.ones(4), 2)


def test_sliding_windows():
    def f(x):
        view = np.lib.stride_tricks.sliding_window_view
        return (
            view(x, 3, 1),
            view(x, (2, 4)),
            view(x[0], 5),
            view(x, (2, 2), (1, 1)),
            view(x, 4, -1),
        )

    x = np.random.default_rng(5).normal(size=(3, 6))
    for got, want in zip(gd.compile(f)(x), f(x), strict=True):
        np.testing.assert_array_equal(got, want)
    gd.check_grads(lambda x: f(x)[1] * np.arange(4) + np.sum(f(x)[3]), x)
    with pytest.raises(gd.ShapeError, match="a window of 7 in axis 1 of shape"):
        gd.trace(lambda x: np.lib.stride_tricks.sliding_window_view(x, 7, 1), x)
