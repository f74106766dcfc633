"""Fits the polynomials of `graphdl/kernels/elementary.py` and writes `coefficients.py` beside it.

    python tools/fit_coefficients.py [name ...]      (all of them: a few minutes)

Each fit is the minimax polynomial of a weighted error on an interval, found by the exchange
algorithm of Remez in 50-digit arithmetic. The coefficients are rounded to the floating point type
one after the other, the lowest power first, and those that remain are fitted again each time, so
that a later coefficient makes up for the rounding of an earlier one; as long as that helps.
"""

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np

mp.mp.dps = 50
TARGET = Path(__file__).parent.parent / "graphdl" / "kernels" / "coefficients.py"
Real = mp.mpf
Function = Callable[[Real], Real]


@dataclass(frozen=True)
class Fit:
    """Minimise max |weight(x) * (function(x) - sum over j of c_j x^j)| for x in `interval`."""

    name: str
    function: Function
    weight: Function
    interval: tuple[Real, Real] | dict[str, tuple[Real, Real]]  # one, or one for each dtype
    terms: dict[str, int]  # number of coefficients for each dtype
    about: str


def remez(
    points: Sequence[Real], wanted: Sequence[Real], weight: Sequence[Real], powers: range
) -> tuple[list[Real], Real]:
    """Coefficients of `powers` with the smallest largest error on the grid, and that error."""
    n, last = len(powers), len(points) - 1
    reference = [round((1 - np.cos(np.pi * i / n)) / 2 * last) for i in range(n + 1)]
    coefficients: list[Real] = []
    level = mp.mpf(0)
    for _ in range(30):
        system, right = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for row, i in enumerate(reference):
            for column, power in enumerate(powers):
                system[row, column] = weight[i] * points[i] ** power
            system[row, n] = (-1) ** row
            right[row] = weight[i] * wanted[i]
        solution = mp.lu_solve(system, right)
        coefficients, level = list(solution[:n]), abs(solution[n])
        error = [
            w * (f - x ** powers[0] * mp.polyval(coefficients[::-1], x))
            for x, f, w in zip(points, wanted, weight, strict=True)
        ]
        extrema = alternating_extrema(error, n + 1)
        if max(abs(e) for e in error) <= level * mp.mpf("1.001") or extrema == reference:
            break
        reference = extrema
    return coefficients, max(abs(e) for e in error)


def alternating_extrema(error: Sequence[Real], count: int) -> list[int]:
    """The `count` neighbouring extrema of alternating sign that hold the largest errors."""
    extrema: list[int] = []
    for i, e in enumerate(error):
        if extrema and mp.sign(e) == mp.sign(error[extrema[-1]]):
            if abs(e) > abs(error[extrema[-1]]):
                extrema[-1] = i
        elif e != 0:
            extrema.append(i)
    while len(extrema) > count:
        if len(extrema) == count + 1:
            drop = 0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else count
            del extrema[drop]
        else:
            sizes = [max(abs(error[a]), abs(error[b])) for a, b in itertools.pairwise(extrema)]
            drop = sizes.index(min(sizes))
            del extrema[drop : drop + 2]
    if len(extrema) < count:
        raise ArithmeticError(
            f"only {len(extrema)} of {count} extrema: too many terms for this grid"
        )
    return extrema


def fit(case: Fit, dtype: str) -> tuple[list[float], float]:
    """The rounded coefficients, lowest power first, and the largest weighted error they leave."""
    terms = case.terms[dtype]
    interval = case.interval[dtype] if isinstance(case.interval, dict) else case.interval
    low, high = (mp.mpf(bound) for bound in interval)
    count = 24 * terms
    points = [
        low + (high - low) * (1 - mp.cos(mp.pi * (i + 0.5) / count)) / 2 for i in range(count)
    ]
    weight = [mp.mpf(case.weight(x)) for x in points]
    left = [mp.mpf(case.function(x)) for x in points]
    number = np.dtype(dtype).type
    rounded: list[float] = []
    best: tuple[float, list[float]] = (float("inf"), [])
    for power in range(terms):
        # At an end of 0 only the coefficients rounded already count: what error they leave there
        # must not steer the others.
        far = [i for i, x in enumerate(points) if low < 0 or power == 0 or x > high / 20]
        coefficients, _ = remez(
            [points[i] for i in far],
            [left[i] for i in far],
            [weight[i] for i in far],
            range(power, terms),
        )
        others = [float(number(mp.nstr(c, 30))) for c in coefficients]
        error = max(
            abs(w * (f - x**power * mp.polyval(others[::-1], x)))
            for x, f, w in zip(points, left, weight, strict=True)
        )
        best = min(best, (float(error), rounded + others))
        rounded.append(others[0])
        left = [f - mp.mpf(others[0]) * x**power for f, x in zip(left, points, strict=True)]
    return best[1], best[0]


def tail(function: Function, known: Function, power: int) -> Function:
    """(function - known) / x^power, with digits to spare for small x."""

    def value(x: Real) -> Real:
        with mp.workdps(50 + 25 * power):
            return (function(x) - known(x)) / x**power

    return value


SQRT_HALF = mp.sqrt(mp.mpf(1) / 2)
HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.0001")
QUARTER_PI = mp.pi / 4 * mp.mpf("1.0001")


def even(function: Function) -> Function:
    """The function of z that `function` is of x, where z = x^2."""
    return lambda z: function(mp.sqrt(z))


ERFC_CENTRE = mp.mpf("0.25")


def erfcx(x: Real) -> Real:
    return mp.exp(x * x) * mp.erfc(x)


def quantile_ratio(w: Real) -> Real:
    """z / (p - 1/2), where p is the normal distribution function of z and w = -log(4 p (1 - p))."""
    if w == 0:
        return mp.sqrt(2 * mp.pi)
    x = mp.sqrt(-mp.expm1(-w))  # 2 p - 1
    if w < 1:
        return 2 * mp.sqrt(2) * mp.erfinv(x) / x
    p = mp.exp(-w) / (2 * (1 + x))  # 1 - p, without cancellation
    z = mp.findroot(
        lambda z: mp.log(mp.erfc(z / mp.sqrt(2)) / 2) - mp.log(p),
        mp.sqrt(2 * w),
        tol=mp.mpf(10) ** -70,
    )
    return 2 * z / x


def quantile_of_root(s: Real) -> Real:
    return quantile_ratio(s * s)


def of_relative_error(function: Function) -> Function:
    """The weight that makes an error relative."""
    return lambda x: 1 / function(x)


FITS = [
    Fit(
        "EXPM1_TAIL",
        tail(mp.exp, lambda r: 1 + r, 2),
        lambda r: abs(r**2 / mp.expm1(r)),
        (-HALF_LN2, HALF_LN2),
        {"float32": 5, "float64": 11},
        "exp(r) = 1 + r + r^2 P(r), |r| <= ln(2)/2; error relative to exp(r) - 1",
    ),
    Fit(
        "LOG1P_TAIL",
        tail(mp.log1p, lambda f: f - f**2 / 2, 3),
        lambda f: abs(f**3 / mp.log1p(f)),
        (SQRT_HALF - mp.mpf("1.00001"), 2 * SQRT_HALF - mp.mpf("0.99999")),
        {"float32": 8, "float64": 19},
        "log(1 + f) = f - f^2/2 + f^3 P(f), sqrt(1/2) <= 1 + f <= sqrt(2); relative error",
    ),
    Fit(
        "SIN_TAIL",
        even(tail(mp.sin, lambda r: r, 3)),
        even(lambda r: r**3 / mp.sin(r)),
        (mp.mpf("1e-12"), QUARTER_PI**2),
        {"float32": 3, "float64": 6},
        "sin(r) = r + r^3 P(r^2), |r| <= pi/4; relative error",
    ),
    Fit(
        "COS_TAIL",
        even(tail(mp.cos, lambda r: 1 - r**2 / 2, 4)),
        even(lambda r: r**4 / mp.cos(r)),
        (mp.mpf("1e-12"), QUARTER_PI**2),
        {"float32": 3, "float64": 6},
        "cos(r) = 1 - r^2/2 + r^4 P(r^2), |r| <= pi/4; relative error",
    ),
    Fit(
        "ATAN_TAIL",
        even(tail(mp.atan, lambda r: r, 3)),
        even(lambda r: r**3 / mp.atan(r)),
        (mp.mpf("1e-12"), mp.mpf("0.1716")),
        {"float32": 4, "float64": 11},
        "atan(r) = r + r^3 P(r^2), |r| <= tan(pi/8); relative error",
    ),
    Fit(
        "ASIN_TAIL",
        even(tail(mp.asin, lambda r: r, 3)),
        even(lambda r: r**3 / mp.asin(r)),
        (mp.mpf("1e-12"), mp.mpf(1) / 4),
        {"float32": 5, "float64": 12},
        "asin(r) = r + r^3 P(r^2), |r| <= 1/2; relative error",
    ),
    Fit(
        "TANH_TAIL",
        even(tail(mp.tanh, lambda r: r, 3)),
        even(lambda r: r**3 / mp.tanh(r)),
        (mp.mpf("1e-12"), mp.mpf("0.3026")),
        {"float32": 5, "float64": 11},
        "tanh(x) = x + x^3 P(x^2), |x| <= 0.55; relative error",
    ),
    Fit(
        "SINH_TAIL",
        even(tail(mp.sinh, lambda r: r, 3)),
        even(lambda r: r**3 / mp.sinh(r)),
        (mp.mpf("1e-12"), mp.mpf(1)),
        {"float32": 4, "float64": 7},
        "sinh(x) = x + x^3 P(x^2), |x| <= 1; relative error",
    ),
    Fit(
        "INVERSE_CBRT",
        lambda m: 1 / mp.cbrt(m),
        lambda m: mp.cbrt(m),
        (mp.mpf("0.353"), mp.mpf("2.829")),
        {"float32": 4, "float64": 4},
        "m^(-1/3) = P(m), 1/sqrt(8) <= m <= sqrt(8), a first guess; relative error",
    ),
    Fit(
        "ERFC_TAIL",
        lambda u: erfcx(1 / (u + ERFC_CENTRE) - 2) / (u + ERFC_CENTRE) - 1,
        lambda u: (u + ERFC_CENTRE) / erfcx(1 / (u + ERFC_CENTRE) - 2),
        {
            "float32": (1 / mp.mpf(12.2) - ERFC_CENTRE, mp.mpf("0.4") - ERFC_CENTRE),
            "float64": (1 / mp.mpf(29.3) - ERFC_CENTRE, mp.mpf("0.4") - ERFC_CENTRE),
        },
        {"float32": 11, "float64": 25},
        "erfc(x) = exp(-x^2) y (1 + P(y - 1/4)), y = 1 / (x + 2), x >= 1/2; relative error",
    ),
    Fit(
        "LOG2_OF_FLOAT32",
        lambda g: mp.log1p(g) / g / mp.log(2),
        lambda g: abs(g * mp.log(2) / mp.log1p(g)),
        (SQRT_HALF - mp.mpf("1.00001"), 2 * SQRT_HALF - mp.mpf("0.99999")),
        {"float64": 13},
        "log2(1 + g) = g P(g) to 2^-34, for powers of float32; relative error",
    ),
    Fit(
        "EXP2_OF_FLOAT32",
        lambda r: mp.mpf(2) ** r,
        lambda r: mp.mpf(2) ** -r,
        (mp.mpf(-1) / 2, mp.mpf(1) / 2),
        {"float64": 7},
        "2^r = P(r), |r| <= 1/2, to 2^-27, for powers of float32; relative error",
    ),
    Fit(
        "ATANH_TAIL",
        even(tail(mp.atanh, lambda s: s + s**3 / 3, 5)),
        even(lambda s: s**5 / mp.atanh(s)),
        (mp.mpf("1e-12"), mp.mpf("0.02945")),
        {"float64": 7},
        "atanh(s) = s + s^3/3 + s^5 P(s^2), |s| <= 3 - sqrt(8), to 2^-65; relative error",
    ),
    Fit(
        "ERF_NEAR",
        even(lambda x: mp.erf(x) / x - 1),
        even(lambda x: x / mp.erf(x)),
        (mp.mpf("1e-12"), mp.mpf(1)),
        {"float32": 7, "float64": 12},
        "erf(x) = x + x P(x^2), |x| <= 1; relative error",
    ),
    Fit(
        "ERF_FAR",
        lambda u: mp.exp((u + 2) ** 2) * mp.erfc(u + 2),
        lambda u: mp.exp(-((u + 2) ** 2)),
        {"float32": (-1, mp.mpf("2.0")), "float64": (-1, mp.mpf("4.0"))},
        {"float32": 8, "float64": 21},
        "1 - erf(x) = exp(-x^2) P(x - 2), x >= 1 until erf(x) rounds to 1; absolute error",
    ),
    Fit(
        "NDTRI_NEAR",
        lambda u: (quantile_ratio(u + 3) - mp.sqrt(2 * mp.pi)) / (u + 3),
        lambda u: (u + 3) / quantile_ratio(u + 3),
        (mp.mpf("-2.999999"), mp.mpf("3.26")),
        {"float32": 10, "float64": 23},
        "ndtri(p) = (p - 1/2) (sqrt(2 pi) + w P(w - 3)), w = -log(4 p (1 - p)) <= 6.25; "
        "relative error",
    ),
    Fit(
        "NDTRI_MIDDLE",
        lambda u: quantile_of_root(u + 3),
        of_relative_error(lambda u: quantile_of_root(u + 3)),
        (mp.mpf("-0.51"), mp.mpf(2)),
        {"float32": 9},
        "ndtri(p) = (p - 1/2) P(sqrt(w) - 3), 2.5 <= sqrt(w) <= 5; relative error",
    ),
]

HEADER = '''"""Minimax polynomials of the elementary functions, lowest power first. Generated.

Written by `tools/fit_coefficients.py`, which holds the functions fitted, the intervals and the
method; run it again instead of editing a number here. `error` is the largest error left by the
rounded coefficients, in units of the last place of the type at 1 (2^-23 or 2^-52).
"""

from typing import Final

Table = dict[str, tuple[float, ...]]
'''


def render(case: Fit) -> str:
    lines = [f"# {case.about}", f"{case.name}: Final[Table] = {{"]
    for dtype in case.terms:
        coefficients, error = fit(case, dtype)
        ulp = float(np.finfo(dtype).eps)
        lines += [f"    # error {error / ulp:.2g}", f'    "{dtype}": (']
        digits = 9 if dtype == "float32" else 17
        lines += [f"        {float(f'{c:.{digits}g}')!r}," for c in coefficients]
        lines += ["    ),"]
        print(f"{case.name} {dtype}: {len(coefficients)} terms, error {error / ulp:.3g} ulp of 1")
    return "\n".join([*lines, "}"])


def main(names: Sequence[str]) -> None:
    sections = dict[str, str]()
    if TARGET.exists():
        for section in re.split(r"\n\n(?=# )", TARGET.read_text())[1:]:
            sections[section.splitlines()[1].split(":")[0]] = section.strip("\n")
    for case in FITS:
        if not names or case.name in names or case.name not in sections:
            sections[case.name] = render(case)
    kept = [sections[case.name] for case in FITS]
    TARGET.write_text(HEADER + "\n" + "\n\n".join(kept) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
