"""Calls to try: by the kind of a function, and of those that want arguments of their own.

In a call, `f` is the function; `x`, `y`, ... are traced, whatever else is there is static.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def values() -> dict[str, Any]:
    """The arrays that calls name."""
    rng = np.random.default_rng(7)
    square = rng.normal(size=(3, 3))
    return {
        "x": rng.uniform(0.2, 0.8, (3, 4)),
        "y": rng.uniform(0.2, 0.8, (3, 4)),
        "z": rng.uniform(0.2, 0.8, (3, 4)),
        "w": rng.uniform(0.2, 0.8, (3, 4)),
        "large": rng.uniform(1.2, 3.0, (3, 4)),
        "v": rng.uniform(0.2, 0.8, 4),
        "u": rng.uniform(0.2, 0.8, 4),
        "ramp": np.sort(rng.uniform(0.0, 1.0, 4)),
        "m": square + 3 * np.eye(3),
        "pd": square @ square.T + np.eye(3),
        "tri": np.tril(square) + 3 * np.eye(3),
        "b3": rng.normal(size=3),
        "c": rng.uniform(0.2, 0.8, (2, 3, 4)),
        "row": rng.uniform(0.2, 0.8, (1, 4)),
        "k": np.array([2, 0, 1]),
        "n": np.array([[1, 2, 0, 3], [2, 0, 1, 1], [0, 3, 2, 1]]),
        "j": np.array([[3, 1, 2, 1], [1, 2, 2, 3], [1, 3, 2, 2]]),
        "mask": rng.random((3, 4)) < 0.5,
        "s": np.float64(0.7),
    }


#: What to try, in order, on functions without an example: by the operands of a ufunc (d a float, i
#: an integer), or by the module.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "d": ("f(x)",),
    "dd": ("f(x, y)",),
    "ddd": ("f(x, y, z)",),
    "dddd": ("f(x, y, z, w)",),
    "ddddd": ("f(x, y, z, w, x)",),
    "i": ("f(n)",),
    "ii": ("f(n, j)",),
    "di": ("f(x, j)",),
    "id": ("f(n, x)",),
    "idd": ("f(n, x, y)",),
    "iid": ("f(n, j, x)",),
    "iidd": ("f(n, j, x, y)",),
    "iddd": ("f(n, x, y, z)",),
    "numpy": ("f(x)", "f(x, y)", "f(v, u)", "f([x, y])", "f(x, 1)", "f(m)"),
    "numpy.linalg": ("f(m)", "f(m, b3)"),
    "numpy.fft": ("f(x)", "f(v)"),
    "scipy.special": ("f(x)", "f(n, x)", "f(x, y)", "f(2, x)"),
    "scipy.linalg": ("f(m)", "f(m, b3)", "f(pd)", "f(b3)"),
}

_EXAMPLES = """
numpy.arccosh           f(large)
numpy.acosh             f(large)
numpy.all               f(mask)
numpy.any               f(mask, axis=0)
numpy.append            f(x, y, axis=0)
numpy.apply_along_axis  f(np.sum, 1, x)
numpy.apply_over_axes   f(np.sum, x, [0])
numpy.arange            f(3.0) * s
numpy.argpartition      np.sort(f(v, 1)[:2])
numpy.array_split       f(x, 3, axis=1)
numpy.bartlett          f(4) * v
numpy.blackman          f(4) * v
numpy.hamming           f(4) * v
numpy.hanning           f(4) * v
numpy.kaiser            f(4, 2.0) * v
numpy.bincount          f(k, b3, minlength=4)
numpy.bitwise_and       f(n, j)
numpy.block             f([[x, y], [y, x]])
numpy.broadcast_arrays  f(v, x)
numpy.broadcast_to      f(v, (3, 4))
numpy.choose            f(n, [x, y, x, y])
numpy.clip              f(x, 0.3, 0.6)
numpy.column_stack      f([v, u])
numpy.compress          f([True, False, True], x, axis=0)
numpy.concat            f([x, y])
numpy.concatenate       f([x, y], axis=1)
numpy.convolve          f(v, u)
numpy.copyto            after(f, x, y, where=mask)
numpy.corrcoef          f(x)
numpy.correlate         f(v, u, "full")
numpy.cross             f(b3, b3[::-1])
numpy.delete            f(x, [1], axis=0)
numpy.diag_indices      x[f(3)]
numpy.diag_indices_from m[f(m)]
numpy.diagflat          f(b3)
numpy.digitize          f(x, np.array([0.3, 0.5]))
numpy.dot               f(m, x)
numpy.dsplit            f(c, 2)
numpy.dstack            f([x, y])
numpy.einsum            f("ij,jk->ik", m, x)
numpy.einsum_path       np.einsum("ij,jk->ik", m, x, optimize=f("ij,jk->ik", m, x)[0])
numpy.empty             f(4).size * s
numpy.empty_like        f(x).size * s
numpy.polyadd           f(v, u)
numpy.polysub           f(v, u)
numpy.polymul           f(v, u)
numpy.polyder           f(v)
numpy.cumulative_sum    f(x, axis=1)
numpy.cumulative_prod   f(x, axis=1)
numpy.union1d           f(v, u)
numpy.expand_dims       f(x, 1)
numpy.extract           f(mask, x)
numpy.eye               f(3) * m
numpy.fill_diagonal     after(f, m, s)
numpy.flip              f(x, 1)
numpy.fromfunction      f(lambda i, j: i + j, (3, 4)) * x
numpy.fromiter          f((i for i in range(4)), float) * v
numpy.full              f(4, 2.0) * v
numpy.full_like         f(x, s)
numpy.gcd               f(n, j)
numpy.geomspace         f(1.0, 8.0, 4) * v
numpy.gradient          f(v)
numpy.histogram         f(v, bins=np.array([0.0, 0.4, 1.0]))
numpy.histogram_bin_edges f(v, 3)
numpy.histogram2d       f(v, u, bins=[np.array([0.0, 0.4, 1.0]), np.array([0.0, 0.5, 1.0])])
numpy.histogramdd       f([v, u], bins=[np.array([0.0, 0.4, 1.0]), np.array([0.0, 0.5, 1.0])])
numpy.hsplit            f(x, 2)
numpy.hstack            f([x, y])
numpy.identity          f(3) * m
numpy.imag              f(x)
numpy.indices           f((3, 4)) * x
numpy.inner             f(x, y)
numpy.insert            f(x, 1, v, axis=0)
numpy.interp            f(x, np.array([0.0, 0.5, 1.0]), b3)
numpy.intersect1d       f(v, u)
numpy.invert            f(n)
numpy.isin              f(n, [1, 2])
numpy.ix_               x[f([0, 2], [1, 3])]
numpy.kron              f(m, x)
numpy.lcm               f(n, j)
numpy.ldexp             f(x, j)
numpy.left_shift        f(n, j)
numpy.lexsort           f((u, v))
numpy.linspace          f(s, 2.0, 4)
numpy.logspace          f(0.0, s, 4)
numpy.mask_indices      m[f(3, np.triu)]
numpy.matmul            f(m, x)
numpy.matvec            f(m, b3)
numpy.vecmat            f(b3, m)
numpy.vecdot            f(x, y)
numpy.meshgrid          f(v, u)
numpy.median            f(x, axis=1)
numpy.moveaxis          f(c, 0, -1)
numpy.nan_to_num        f(x)
numpy.nanpercentile     f(x, 30, axis=1)
numpy.nanquantile       f(x, 0.3, axis=1)
numpy.ones              f(4) * v
numpy.outer             f(v, u)
numpy.packbits          f(mask, axis=1)
numpy.unpackbits        f(n.astype(np.uint8), axis=1)
numpy.pad               f(x, 1)
numpy.partition         f(v, 1)[1]
numpy.percentile        f(x, 30, axis=1)
numpy.permute_dims      f(x, (1, 0))
numpy.piecewise         f(x, [x < 0.5, x >= 0.5], [np.sin, np.cos])
numpy.place             after(f, x, mask, 0.5)
numpy.poly              f(b3)
numpy.polydiv           f(v, b3)
numpy.polyfit           f(ramp, v, 2)
numpy.polyint           f(v)
numpy.polyval           f(b3, x)
numpy.put               after(f, x, k, b3)
numpy.put_along_axis    after(f, x, n[:, :1], 0.5, 1)
numpy.putmask           after(f, x, mask, y)
numpy.quantile          f(x, 0.3, axis=1)
numpy.ravel_multi_index f((n, j), (4, 4))
numpy.repeat            f(x, 2, axis=1)
numpy.reshape           f(x, (4, 3))
numpy.resize            f(x, (5, 2))
numpy.right_shift       f(n, j)
numpy.roll              f(x, 2)
numpy.rollaxis          f(c, 2)
numpy.roots             f(b3)
numpy.row_stack         f([x, y])
numpy.searchsorted      f(ramp, v)
numpy.select            f([x < 0.4, x < 0.6], [x, y])
numpy.setdiff1d         f(k, np.array([1]))
numpy.setxor1d          f(k, np.array([1]))
numpy.sort_complex      f(x)
numpy.split             f(x, 2, axis=1)
numpy.squeeze           f(row)
numpy.stack             f([x, y], axis=1)
numpy.swapaxes          f(c, 0, 2)
numpy.take              f(x, k, axis=1)
numpy.take_along_axis   f(x, n[:, :2], 1)
numpy.tensordot         f(m, x, 1)
numpy.tile              f(x, (2, 1))
numpy.trace             f(m)
numpy.transpose         f(c, (2, 0, 1))
numpy.trapezoid         f(v, ramp)
numpy.tri               f(3, 4) * x
numpy.tril_indices      x[f(3)]
numpy.triu_indices      x[f(3)]
numpy.tril_indices_from m[f(m)]
numpy.triu_indices_from m[f(m)]
numpy.trim_zeros        f(v)
numpy.unravel_index     f(n, (2, 2))
numpy.unstack           f(x)
numpy.unwrap            f(v)
numpy.vander            f(v, 3)
numpy.vsplit            f(x, 3)
numpy.vstack            f([x, y])
numpy.where             f(mask, x, y)
numpy.zeros             f(4) + v
numpy.i0                f(x)
numpy.sinc              f(x)
numpy.logical_not       f(mask)
numpy.bitwise_count     f(n)
numpy.ascontiguousarray f(x)
numpy.asfortranarray    f(x)
numpy.asarray           f(x)
numpy.asanyarray        f(x)
numpy.asarray_chkfinite f(x)
numpy.array             f([s, s * 2])
numpy.astype            f(x, np.float64)
numpy.linalg.cholesky   f(pd)
numpy.linalg.eigh       abs(f(pd)[1])
numpy.linalg.eigvalsh   f(pd)
numpy.linalg.cond       f(m)
numpy.linalg.cross      f(b3, b3[::-1])
numpy.linalg.diagonal   f(m)
numpy.linalg.lstsq      f(x.T, v, rcond=None)[0]
numpy.linalg.matmul     f(m, x)
numpy.linalg.matrix_power f(m, 3)
numpy.linalg.multi_dot  f([m, m, x])
numpy.linalg.outer      f(v, u)
numpy.linalg.qr         f(m)
numpy.linalg.solve      f(m, b3)
numpy.linalg.svd        f(m)[1]
numpy.linalg.tensordot  f(m, x, axes=1)
numpy.linalg.tensorinv  f(m, 1)
numpy.linalg.tensorsolve f(m, b3)
numpy.linalg.vecdot     f(x, y)
numpy.linalg.vector_norm f(x)
numpy.fft.fftfreq       f(4) * v
numpy.fft.rfftfreq      f(6) * v
numpy.fft.irfft         f(v)
numpy.fft.hfft          f(v)
scipy.special.multigammaln f(large, 2)
scipy.special.polygamma f(n, x)
scipy.special.zeta      f(large, x)
scipy.special.comb      f(6, 2) * s
scipy.special.perm      f(6, 2) * s
scipy.special.factorial f(k)
scipy.special.logsumexp f(x, axis=1)
scipy.special.softmax   f(x, axis=1)
scipy.special.log_softmax f(x, axis=1)
scipy.special.bernoulli f(4)[1:] * v
scipy.special.euler     f(4)[1:] * v
scipy.special.diric     f(x, 3)
scipy.special.jvp       f(1, x)
scipy.special.yvp       f(1, x)
scipy.special.ivp       f(1, x)
scipy.special.kvp       f(1, x)
scipy.special.h1vp      f(1, x)
scipy.special.h2vp      f(1, x)
scipy.special.erfinv    f(x)
scipy.special.spherical_jn f(n, x)
scipy.special.spherical_yn f(n, x)
scipy.special.spherical_in f(n, x)
scipy.special.spherical_kn f(n, x)
scipy.linalg.cho_factor f(pd, lower=True)[0][2]
scipy.linalg.cho_solve  f((tri, True), b3)
scipy.linalg.cholesky   f(pd)
scipy.linalg.block_diag f(m, pd)
scipy.linalg.eigh       abs(f(pd)[1])
scipy.linalg.eigvalsh   f(pd)
scipy.linalg.eigh_tridiagonal f(b3 + 3, b3[:2], eigvals_only=True)
scipy.linalg.eigvalsh_tridiagonal f(b3 + 3, b3[:2])
scipy.linalg.lstsq      f(x.T, v)[0]
scipy.linalg.lu         f(m)
scipy.linalg.lu_factor  f(m)[0]
scipy.linalg.lu_solve   f((m, np.arange(3)), b3)
scipy.linalg.qr         f(m)
scipy.linalg.solve      f(m, b3)
scipy.linalg.solve_triangular f(tri, b3, lower=True)
scipy.linalg.solve_banded f((1, 1), np.array([[0, 1, 2], [4, 5, 6], [1, 2, 0]]) + 0 * m, b3)
scipy.linalg.solve_circulant f(b3 + 3, b3)
scipy.linalg.solve_toeplitz f(b3 + np.array([5, 0, 0]), b3)
scipy.linalg.solve_sylvester f(m, pd, m)
scipy.linalg.solve_continuous_lyapunov f(m, pd)
scipy.linalg.solve_lyapunov f(m, pd)
scipy.linalg.solve_discrete_lyapunov f(m / 9, pd)
scipy.linalg.solveh_banded f(np.array([[0, 1, 1], [4, 5, 6]]) + 0 * m[:2], b3)
scipy.linalg.svd        f(m)[1]
scipy.linalg.khatri_rao f(m, pd)
scipy.linalg.matmul_toeplitz f(b3, m)
scipy.linalg.expm_frechet f(m, pd)
scipy.linalg.fractional_matrix_power f(pd, 0.5)
scipy.linalg.sqrtm      f(pd)
scipy.linalg.logm       f(pd)
scipy.linalg.hilbert    f(3) * m
scipy.linalg.invhilbert f(3) * m
scipy.linalg.pascal     f(3) * m
scipy.linalg.invpascal  f(3) * m
scipy.linalg.hadamard   f(4) * v
scipy.linalg.helmert    f(3) * b3
scipy.linalg.dft        np.real(f(3)) * m
scipy.linalg.pinvh      f(pd)
scipy.linalg.orthogonal_procrustes f(m, pd)[0]
scipy.linalg.subspace_angles f(m[:, :1], pd[:, :1])
scipy.linalg.convolution_matrix f(v, 3)
scipy.linalg.diagsvd    f(b3, 3, 3)
"""

#: "module.name" -> the call to try.
EXAMPLES: dict[str, str] = {
    name: call.strip()
    for line in _EXAMPLES.strip().splitlines()
    for name, call in (line.split(maxsplit=1),)
}
