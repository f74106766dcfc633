"""How the text of kernels is read and typed: every statement of it, and what it may not hold."""

from __future__ import annotations

import numpy as np
import pytest

from graphdl.kernels.cpu import frontend
from graphdl.kernels.cpu.native import compiled
from graphdl.kernels.source import KernelError
from tests.test_native import both_ways, own_cache, source  # noqa: F401  (a fixture)

#: Bodies of `for i in range(lo, hi)` that read x[i], y[i] (int64) and f[i] and write to `out`.
STATEMENTS = {
    "and, or": "out[i] = 1 if x[i] > 0 and y[i] > 0 or x[i] == -2 else 2",
    "not": "if not (x[i] > 0 or y[i] > 1):\n    out[i] = 3",
    "a chain of conditions": (
        "if x[i] > -2 and y[i] > -2 and x[i] < 2 and y[i] < 2:\n    out[i] = 4"
    ),
    "elif": "if x[i] > 1:\n    out[i] = 1\nelif y[i] > 1:\n    out[i] = 2\nelse:\n    out[i] = 3",
    "a condition kept": "both = x[i] > 0 and y[i] > 0\nout[i] = i64(both)",
    "or kept": "either = x[i] > 1 or y[i] > 1 or x[i] == y[i]\nout[i] = i64(either)",
    "swap": "a, b = x[i], y[i]\na, b = b, a\nout[i] = 10 * a + b",
    "a tuple of four": "a, b, c, d = x[i], 1, y[i], 2\nout[i] = a * b - c * d",
    "steps in place": "out[i] = 5\nout[i] += x[i]\nout[i] *= 2\nt = y[i]\nt -= 3\nout[i] -= t",
    "while": "k = 5\nwhile k > x[i] and k > y[i]:\n    k -= 1\nout[i] = k",
    "while, continue, break": (
        "k = 0\nwhile k < 9:\n    k += 1\n    if k == x[i]:\n        continue\n"
        "    if k > y[i] + 4:\n        break\n    out[i] += k"
    ),
    "a loop left": "for k in range(9):\n    if k > x[i]:\n        break\n    out[i] += k",
    "a loop left at once": "while x[i] > 0:\n    out[i] = 7\n    break",
    "behind continue": "if x[i] > 0:\n    continue\n    out[i] = 1\nout[i] = 2",
    "both ways out": (
        "for k in range(4):\n    if k == x[i]:\n        break\n    else:\n        continue\n"
        "out[i] = k"
    ),
    "return": "if x[i] == 2:\n    return\nout[i] = 1",
    "a step down": "for k in range(x[i] + 2, y[i] - 3, -2):\n    out[i] = 10 * out[i] + k",
    "numbers": "out[i] = (2 + 3) * 4 - -x[i] + (1 << 5) + 7 // 2 + y[i] % 3",
    "one name, two types": (
        "t = x[i] + 1\nout[i] = t // 2\nt = f[i] * f32(0.5)\nif t > f32(0.0):\n    out[i] += 1"
    ),
    "one name, two pointers": "p = x\nout[i] = p[i]\np = f\nif p[i] > f32(0.0):\n    out[i] = 9",
    "widened in a loop": "t = 0\nfor k in range(3):\n    t = t + 0.5\nout[i] = i64(t * 2.0)",
    "typed behind its use": (
        "t = 0\nu = 1\nfor k in range(3):\n    t = u\n    u = x[i] + k\nout[i] = t"
    ),
    "a docstring and pass": '"""Nothing."""\npass\nout[i] = 1',
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_means_what_it_means_in_python(name):
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)))
    f = np.linspace(-1, 1, x.size, dtype=np.float32)
    body = "\n".join("    " + line for line in STATEMENTS[name].splitlines())
    head = "x, y, f, out = i64_at(table[0]), i64_at(table[1]), f32_at(table[2]), i64_at(table[3])"
    text = source(f"{head}\nfor i in range(lo, hi):\n{body}")
    both_ways(text, [x.astype(np.int64), y.astype(np.int64), f, np.zeros_like(x)], 0, x.size)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("x = [lo, hi]", "[lo, hi] is not in kernels (line 2)"),
        ("x = {}", "{} is not in kernels"),
        ("with lo:\n    pass", "With is not in kernels"),
        ("x = lo < hi < 3", "lo < hi < 3 is not in kernels"),
        ("a, b = lo", "only a tuple that is written out can be unpacked"),
        ("x = y = lo", "one place"),
        ("lo.x = 1", "only a variable or an element can be assigned to"),
        ("for a, b in range(3):\n    pass", "a loop has one variable, and no else"),
        ("return lo", "a kernel returns nothing"),
        ("x = elsewhere + 1", "nothing defines elsewhere (line 2)"),
        ("x = x + 1", "x is read before it is assigned"),
        ("x = min_i64(a=lo, b=hi)", "is not in kernels"),
        ("p = f32_at(lo)\np[0] = p", "line 3"),
        ("x = lo\nif lo > 1:\n    x = f32_at(lo)\ny = x", "x cannot be"),
    ],
)
def test_what_is_not_in_kernels_is_refused(body, says):
    with pytest.raises(KernelError) as caught:
        compiled([source(body)])
    assert says in str(caught.value)


def test_a_name_has_one_type_where_it_can_and_versions_where_it_must(monkeypatch):
    told_apart = []
    monkeypatch.setattr(
        frontend,
        "reconstruct_ssa",
        lambda f, old=frontend.reconstruct_ssa: told_apart.append(f) or old(f),
    )
    frontend.llvm_ir(
        source("t = 0\nfor i in range(lo, hi):\n    t = t + i\ni64_at(lo)[0] = t").text, "k", ""
    )
    assert not told_apart
    frontend.llvm_ir(
        source("t = lo\ni64_at(hi)[0] = t\nt = f32(lo)\nf32_at(hi)[0] = t").text, "k", ""
    )
    assert told_apart
