"""Names that are not tried, and why; and those that another library differentiates."""

from __future__ import annotations

#: Why a name cannot work on traced values, or has nothing to do with them: reason -> names. They
#: are not called: some of them write files.
NOT_TRIED: dict[str, str] = {
    "input and output": (
        "fromfile fromregex genfromtxt load loadtxt save savetxt savez savez_compressed fromstring "
        "frombuffer from_dlpack"
    ),
    "strings and dates": (
        "array2string array_repr array_str base_repr binary_repr format_float_positional "
        "format_float_scientific busday_count busday_offset datetime_as_string datetime_data "
        "is_busday isnat typename"
    ),
    "settings, types and memory, not the values of arrays": (
        "printoptions set_printoptions get_printoptions getbufsize setbufsize seterr geterr "
        "seterrcall geterrcall get_include info show_config show_runtime test can_cast "
        "common_type min_scalar_type mintypecode promote_types result_type issubdtype isdtype "
        "nested_iters may_share_memory shares_memory isfortran require frompyfunc "
        "broadcast_shapes find_best_blas_type get_blas_funcs get_lapack_funcs errstate "
        "bandwidth ishermitian issymmetric asmatrix bmat"
    ),
    "its result is a Python object: a polynomial, or nodes and zeros for given numbers": (
        "chebyc chebys chebyt chebyu gegenbauer genlaguerre hermite hermitenorm jacobi laguerre "
        "legendre sh_chebyt sh_chebyu sh_jacobi sh_legendre "
        "ai_zeros bei_zeros beip_zeros ber_zeros berp_zeros bi_zeros erf_zeros fresnel_zeros "
        "fresnelc_zeros fresnels_zeros jn_zeros jnjnp_zeros jnp_zeros jnyn_zeros kei_zeros "
        "keip_zeros kelvin_zeros ker_zeros kerp_zeros y0_zeros y1_zeros y1p_zeros yn_zeros "
        "ynp_zeros c_roots cg_roots h_roots he_roots j_roots js_roots l_roots la_roots p_roots "
        "ps_roots roots_chebyc roots_chebys roots_chebyt roots_chebyu roots_gegenbauer "
        "roots_genlaguerre roots_hermite roots_hermitenorm roots_jacobi roots_laguerre "
        "roots_legendre roots_sh_chebyt roots_sh_chebyu roots_sh_jacobi roots_sh_legendre s_roots "
        "t_roots ts_roots u_roots us_roots"
    ),
}

#: Names whose result would have a shape that depends on values.
SHAPELESS = (
    "argwhere extract flatnonzero nonzero intersect1d setdiff1d setxor1d union1d unique unique_all "
    "unique_counts unique_inverse unique_values trim_zeros roots null_space orth"
)
OF_ANY_SHAPE = frozenset(SHAPELESS.split())

REASONS: dict[str, str] = {
    name: reason for reason, names in NOT_TRIED.items() for name in names.split()
}

#: What autograd 1.9.1 defines a gradient for: `defvjp` in autograd/numpy/numpy_vjps.py, linalg.py,
#: fft.py and autograd/scipy/special.py, linalg.py, without its own helpers and np.msort, which
#: NumPy 2 has not. It also knows distributions of scipy.stats, scipy.signal.convolve and
#: scipy.integrate.odeint, which are not names of these modules.
AUTOGRAD = "autograd 1.9.1"
AUTOGRAD_NAMES: dict[str, str] = {
    "numpy": (
        "nan_to_num add multiply subtract divide maximum minimum fmax fmin logaddexp logaddexp2 "
        "true_divide mod remainder power arctan2 hypot negative abs absolute fabs reciprocal exp "
        "exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh "
        "arccosh arctanh rad2deg degrees deg2rad radians square sqrt sinc reshape roll array_split "
        "split vsplit hsplit dsplit ravel expand_dims squeeze diag flipud fliplr rot90 trace full "
        "triu tril clip swapaxes moveaxis real_if_close real imag conj conjugate angle where cross "
        "linspace astype rollaxis diff gradient repeat tile kron transpose broadcast_to sum mean "
        "prod var std max min amax amin cumsum inner matmul dot tensordot outer concatenate sort "
        "partition atleast_1d atleast_2d atleast_3d einsum diagonal array pad"
    ),
    "numpy.linalg": "det slogdet inv pinv solve norm eigh eig cholesky svd",
    "numpy.fft": (
        "fft ifft fft2 ifft2 fftn ifftn rfft irfft rfft2 irfft2 rfftn irfftn fftshift ifftshift"
    ),
    "scipy.special": (
        "beta betainc betaln gammasgn polygamma psi digamma gamma gammaln rgamma multigammaln "
        "gammainc gammaincc j0 y0 j1 y1 jn yn i0 i1 iv ive erf erfc erfinv erfcinv logit expit "
        "logsumexp"
    ),
    "scipy.linalg": "sqrtm solve_triangular solve_banded solve_sylvester",
}
