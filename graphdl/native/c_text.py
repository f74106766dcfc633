"""The header of an exported program, and an example of a C program that calls it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from graphdl.native.nesting import identifiers
from graphdl.native.signature import Signature
from graphdl.types import Dtype, TensorType

#: Words that C or C++ does not let a parameter be called, and names that the example uses.
RESERVED = frozenset(
    [
        "alignas",
        "alignof",
        "asm",
        "auto",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "const",
        "constexpr",
        "continue",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "explicit",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "operator",
        "private",
        "protected",
        "public",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "true",
        "try",
        "typedef",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "main",
        "code",
        "i",
        "printf",
    ]
)

_C_TYPES = {
    "bool": "bool",
    "float32": "float",
    "float64": "double",
    **dict.fromkeys(("float16", "bfloat16"), "uint16_t"),  # their bits: few compilers know them
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "complex64": "float",
    "complex128": "double",
}


class Names:
    """What the parameters of the C function are called."""

    def __init__(self, signature: Signature, name: str) -> None:
        given = [x.name for x in signature.arguments] + [x.name for x in signature.new]
        found = identifiers(given, (*RESERVED, name, f"{name}_release"))
        self.arguments = found[: len(signature.arguments)]
        self.results = found[len(signature.arguments) :]


def prototype(signature: Signature, name: str) -> str:
    """The declaration of the function."""
    names = Names(signature, name)
    parameters = []
    for argument, own in zip(signature.arguments, names.arguments, strict=True):
        kind = _c_type(argument.type.dtype)
        if argument.number:
            parameters.append(f"{kind} {own}")
        else:
            parameters.append(f"{'' if argument.donated else 'const '}{kind} *{own}")
    for result, own in zip(signature.new, names.results, strict=True):
        parameters.append(f"{_c_type(result.type.dtype)} *{own}")
    listed = textwrap.fill(", ".join(parameters) or "void", 92, subsequent_indent="    ")
    return f"int {name}({listed});"


def _c_type(dtype: Dtype) -> str:
    return _C_TYPES[dtype.name]


def header(signature: Signature, name: str, needs: Sequence[str]) -> str:
    """The text of the header; `needs` are the symbols that the user's libraries must have."""
    names = Names(signature, name)
    rows = [
        (own, _described(x.type, x.number) + (", written over" if x.donated else ""))
        for own, x in zip(names.arguments, signature.arguments, strict=True)
    ]
    rows += [(own, _described(x.type)) for own, x in zip(names.results, signature.new, strict=True)]
    width = max((len(own) for own, _ in rows), default=0)
    listed = "\n".join(f" *   {own:<{width}}  {text}" for own, text in rows)
    codes = "\n".join(
        f" *   {code}  {str(error).splitlines()[0]}" for code, error in signature.failures.items()
    ).replace("*/", "* /")
    guard = f"{name.upper()}_H"
    linked = f" It needs {', '.join(needs)}: link a BLAS.\n *" if needs else ""
    return f"""/* {name}: compiled by graphdl for one processor. Link {name}*.o and -lm.
 *{linked}
{listed}
 *
 * Arrays lie row by row; complex numbers are pairs. A result shares no memory with another one or
 * with an argument. Returns 0, or why there is no result:
{codes}
 *
 * Any number of threads may call it at once: each call that runs has memory of its own, which is
 * kept for the next one until {name}_release() is called while no call runs.
 */
#ifndef {guard}
#define {guard}

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{prototype(signature, name)}
void {name}_release(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _described(type: TensorType, number: bool = False) -> str:
    sizes = "".join(f"[{size}]" for size in type.shape)
    return f"{type.dtype}{sizes}" + ("" if sizes or number else ", one number")


def example(signature: Signature, name: str, libraries: Sequence[str]) -> str:
    """A program that calls the function once and prints the beginning of each result."""
    names = Names(signature, name)
    declared, filled, given, printed = [], [], [], []
    for own, argument in zip(names.arguments, signature.arguments, strict=True):
        kind = _c_type(argument.type.dtype)
        if argument.number:
            given.append("1")
            continue
        declared.append(f"static {kind} {own}[{_elements(argument.type)}];")
        value = "0" if argument.type.dtype.kind in "biu" else "0.25f * (float)(i % 8 + 1)"
        if argument.type.dtype.kind in "fc":
            filled.append(
                f"    for (i = 0; i < {_elements(argument.type)}; i++) {own}[i] = {value};"
            )
        given.append(own)
        if argument.donated:
            printed.append(_print(own, argument.type))
    for own, result in zip(names.results, signature.new, strict=True):
        declared.append(f"static {_c_type(result.type.dtype)} {own}[{_elements(result.type)}];")
        given.append(own)
        printed.append(_print(own, result.type))
    call = textwrap.fill(", ".join(given), 84, subsequent_indent="        ")
    lines = "\n".join(declared)
    body = "\n".join(filled)
    shown = "\n".join(printed)
    flags = " ".join(("-lm", *libraries))
    return f"""/* cc -O2 {name}_example.c {name}*.o {flags} -o {name}_example */
#include <stdio.h>

#include "{name}.h"

{lines}

int main(void) {{
    long i;
    int code;
{body}
    code = {name}({call});
    if (code != 0) {{
        printf("{name} failed: %d\\n", code);
        return 1;
    }}
{shown}
    {name}_release();
    return 0;
}}
"""


def _elements(type: TensorType) -> int:
    """How many numbers an array has in C, at least one: C has no empty arrays."""
    return max(math.prod(type.shape), 1) * (2 if type.is_complex else 1)


def _print(own: str, type: TensorType) -> str:
    count = min(_elements(type), 8) if 0 not in type.shape else 0
    return (
        f'    printf("{own}:");\n'
        f'    for (i = 0; i < {count}; i++) printf(" %.9g", (double){own}[i]);\n'
        f'    printf("\\n");'
    )
