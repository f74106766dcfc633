"""The user's functions as native code. Imported only where there is one, as Numba is then.

A scalar function is compiled by Numba for its dtypes, with NumPy's rules for division by zero. Its
LLVM IR is linked with that of the kernel, where everything becomes internal to the module, so that
LLVM inlines it and drops the wrappers for Python. What it calls of the mathematical library becomes
our own elementary functions: they have vector variants, and the loop around stays one of vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic

from graphdl.errors import DtypeError
from graphdl.kernels.cpu.intrinsics import Intrinsic
from graphdl.kernels.cpu.scalar_code import definition, function_name
from graphdl.kernels.cpu.scalars import DTYPE_OF, NUMBA_TYPES
from graphdl.kernels.elementary import ELEMENTARY
from graphdl.kernels.user import RAISED_BY, UserFunction, called_in, writes_results
from graphdl.types import TensorType

#: Functions of the mathematical library -> ours. float32 has the same names with an f behind.
_LIBM = {
    **{name: name for name in ("exp2", "expm1", "log1p", "tan", "sinh", "cosh", "tanh")},
    **{name: name for name in ("exp", "log", "log2", "log10", "sin", "cos", "cbrt", "erf", "erfc")},
    **{"a" + name: "arc" + name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "tan2")},
    "pow": "power",
    "hypot": "hypot",
}
_NAMES = {
    **{name: (own, "float64") for name, own in _LIBM.items()},
    **{name + "f": (own, "float32") for name, own in _LIBM.items()},
    **{
        f"llvm.{name}.f{bits}": (_LIBM[name], f"float{bits}")
        for name in ("exp", "exp2", "log", "log2", "log10", "sin", "cos", "tan", "pow")
        for bits in (32, 64)
    },
}


@contextmanager
def _explained(user: UserFunction, kinds: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    except NumbaError as error:
        given = ", ".join(map(str, kinds))
        raise DtypeError(
            f"gd.op({user.name}): Numba cannot compile it for ({given}):\n{error}"
        ) from error


def _overload(user: UserFunction, dtypes: tuple[str, ...]) -> Any:
    """What Numba makes of a scalar function for these dtypes."""
    if dtypes not in user.calls:
        kinds = tuple(NUMBA_TYPES[dtype] for dtype in dtypes)
        options = {"fastmath": user.function.targetoptions.get("fastmath", False)}
        compiled = numba.njit(error_model="numpy", **options)(user.function.py_func)
        with _explained(user, dtypes):
            compiled.compile(kinds)
        user.calls[dtypes] = compiled, compiled.overloads[kinds]
    return user.calls[dtypes]


def result_dtype(user: UserFunction, dtypes: tuple[str, ...]) -> str:
    """The dtype of the result of a scalar function. Raises DtypeError if that is no number."""
    kind = types.unliteral(_overload(user, dtypes)[1].signature.return_type)
    if kind not in DTYPE_OF:
        raise DtypeError(
            f"gd.op({user.name}) returns {kind} for ({', '.join(dtypes)}): a scalar function "
            f"returns one number. A function of arrays needs result=, which says what it returns"
        )
    return DTYPE_OF[kind]


def evaluate(user: UserFunction, *operands: Any) -> Any:
    """A scalar function of each element, called from Python."""
    compiled, overload = _overload(user, tuple(np.asarray(x).dtype.name for x in operands))
    dtype = DTYPE_OF[types.unliteral(overload.signature.return_type)]
    arrays = np.broadcast_arrays(*operands)
    flat = [np.ravel(array) for array in arrays]
    values = [compiled(*numbers) for numbers in zip(*flat, strict=True)]
    return np.array(values, dtype).reshape(arrays[0].shape)


def intrinsics_of(text: str) -> dict[str, Any]:
    """What the names of the user's functions in the text of a kernel mean to its compiler."""
    users = called_in(text)
    return {
        **{user.symbol: Intrinsic(_defined(user, user.symbol, _value)) for user in users},
        **{
            name: Intrinsic(_defined(user, name, _status))
            for user in users
            for name in [RAISED_BY + user.symbol]
        },
    }


def may_raise(user: UserFunction, dtypes: tuple[str, ...]) -> bool:
    """Whether the optimised code of a scalar function returns anything but success."""
    overload = _overload(user, dtypes)[1]
    module = llvm.parse_assembly(overload.library.get_llvm_str())
    entry = str(module.get_function(overload.fndesc.llvm_func_name))
    return re.search(r"\bret i32 (?!0\b)", entry) is not None


#: Numba's type of what a wrapper returns, and the code for it: of the status and of the result.
_Returned = tuple[Any, Callable[[Any, ir.IRBuilder, ir.Value, ir.Value], ir.Value]]


def _value(user: UserFunction, dtypes: tuple[str, ...]) -> _Returned:
    """What the function returns. Where it raises that is nothing: NaN, or 0."""
    kind = NUMBA_TYPES[result_dtype(user, dtypes)]
    return kind, lambda context, builder, status, slot: context.get_returned_value(
        builder, kind, builder.load(slot)
    )


def _status(user: UserFunction, dtypes: tuple[str, ...]) -> _Returned:
    """Whether the function raises."""
    return types.boolean, lambda context, builder, status, slot: builder.icmp_unsigned(
        "!=", status, ir.Constant(status.type, 0)
    )


_Choose = Callable[[UserFunction, tuple[str, ...]], _Returned]


def _defined(user: UserFunction, symbol: str, choose: _Choose) -> Callable[..., Any]:
    def define(context: Any, *operands: Any) -> Any:
        if any(kind not in DTYPE_OF for kind in operands):
            return None
        dtypes = tuple(DTYPE_OF[kind] for kind in operands)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            name = function_name(symbol, dtypes)
            function = _wrapper(user, dtypes, context, builder.module, name, choose)
            return builder.call(function, list(arguments))

        return choose(user, dtypes)[0](*operands), codegen

    define.__name__ = define.__qualname__ = symbol
    return define


def _wrapper(
    user: UserFunction,
    dtypes: tuple[str, ...],
    context: Any,
    module: Any,
    name: str,
    choose: _Choose,
) -> Any:
    """A function of the kernel's module that calls Numba's, which returns a status and stores its
    result."""
    if name in module.globals:
        return module.globals[name]
    overload = _overload(user, dtypes)[1]
    for own, dtype, arity in _elementary(overload.library.get_llvm_str()):
        definition(ELEMENTARY[own], module, (dtype,) * arity)
    result = types.unliteral(overload.signature.return_type)
    kinds = [NUMBA_TYPES[dtype] for dtype in dtypes]
    values = [context.get_value_type(kind) for kind in kinds]
    returned, code = choose(user, dtypes)
    function = ir.Function(module, ir.FunctionType(context.get_value_type(returned), values), name)
    function.linkage = "internal"
    function.attributes.add("alwaysinline")
    builder = ir.IRBuilder(function.append_basic_block())
    stored = context.get_return_type(result)
    raised = ir.IntType(8).as_pointer()
    given = [context.get_argument_type(kind) for kind in kinds]
    entry_type = ir.FunctionType(ir.IntType(32), [stored.as_pointer(), raised.as_pointer(), *given])
    entry = module.globals.get(overload.fndesc.llvm_func_name) or ir.Function(
        module, entry_type, overload.fndesc.llvm_func_name
    )
    slot, excuse = builder.alloca(stored), builder.alloca(raised)
    nothing = float("nan") if isinstance(result, types.Float) else 0
    builder.store(ir.Constant(stored, nothing), slot)
    arguments = [
        context.data_model_manager[kind].as_argument(builder, value)
        for kind, value in zip(kinds, function.args, strict=True)
    ]
    status = builder.call(entry, [slot, excuse, *arguments])
    builder.ret(code(context, builder, status, slot))
    return function


def _elementary(text: str) -> list[tuple[str, str, int]]:
    """Our functions that stand for those which LLVM IR declares: name, dtype, arity."""
    found = []
    for name, parameters in re.findall(r"^declare .*?@([\w.]+)\(([^)]*)\)", text, re.MULTILINE):
        if name in _NAMES:
            found.append((*_NAMES[name], parameters.count(",") + 1))
    return found


def linked(text: str, kernel: str, symbol: str) -> str:
    """The LLVM IR of a kernel together with that of the user's functions that it calls.

    `text` is the IR of the kernel, `kernel` its source, and `symbol` what stays visible.
    """
    users = called_in(kernel)
    if not users:
        return text
    module = llvm.parse_assembly(text)
    wanted = {function.name for function in module.functions}
    for function in module.functions:
        if function.name.startswith("graphdl_") and not function.is_declaration:
            function.linkage = "external"  # for the user's functions to find
    for user in users:
        for _, overload in user.calls.values():
            if overload.fndesc.llvm_func_name in wanted:
                part = _part(overload)
                module.triple, module.data_layout = part.triple, part.data_layout
                module.link_in(part)
    for value in (*module.functions, *module.global_variables):
        hidden = not value.is_declaration and not value.name.startswith("llvm.")
        if hidden and value.name != symbol:
            value.linkage = "internal"
    return str(module)


def _part(overload: Any) -> Any:
    """The module of one function of the user's: all but itself is its own affair."""
    text = overload.library.get_llvm_str()
    for own, dtype, arity in _elementary(text):
        for name in [name for name, known in _NAMES.items() if known == (own, dtype)]:
            replacement = function_name(own, (dtype,) * arity)
            text = re.sub(rf"@{re.escape(name)}(?=\()", f"@{replacement}", text)
    text = _without_repeated_declarations(text)
    part = llvm.parse_assembly(text)
    entry = overload.fndesc.llvm_func_name
    for value in (*part.functions, *part.global_variables):
        if not value.is_declaration and value.name != entry:
            value.linkage = "internal"
    return part


def _without_repeated_declarations(text: str) -> str:
    """LLVM IR in which several functions have got one name, declared once."""
    seen: set[str] = set()
    lines = []
    for line in text.split("\n"):
        match = re.match(r"declare .*?@([\w.]+)\(", line)
        if match and match[1] in seen:
            continue
        if match:
            seen.add(match[1])
        lines.append(line)
    return "\n".join(lines)


# --- functions of arrays ----------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any, kind: Any) -> Any:
    """An address as a pointer to values of the dtype of `kind`."""
    pointer = types.CPointer(kind.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, kind), codegen


def array_entry(
    user: UserFunction, operands: tuple[TensorType, ...], results: tuple[TensorType, ...]
) -> int:
    """The address of `void f(int64 *table)` that calls a function of arrays.

    The numbers of axes and the dtypes are part of it; sizes and addresses come from the table, as
    graphdl.kernels.user.launch fills it.
    """
    key = tuple((type.dtype.name, type.ndim) for type in (*operands, *results)), len(results)
    if key not in user.calls:
        text = _entry_text(operands, results, writes_results(user, len(operands), len(results)))
        names: dict[str, Any] = {"function": user.function, "pointer": _pointer}
        names |= {"carray": numba.carray, "status_kind": types.int64}
        names |= {
            f"kind{i}": NUMBA_TYPES[type.dtype.name] for i, type in enumerate((*operands, *results))
        }
        exec(text, names)
        signature = types.void(types.CPointer(types.int64))
        with _explained(user, [f"{t.dtype}, {t.ndim} axes" for t in operands]):
            user.calls[key] = numba.cfunc(signature)(names["entry"])
    return int(user.calls[key].address)


def _entry_text(operands: Sequence[TensorType], results: Sequence[TensorType], writes: bool) -> str:
    lines = ["def entry(table):", "    words = carray(table, (3,))"]
    words = 3
    names = []
    for i, type in enumerate((*operands, *results)):
        stop = words + 1 + type.ndim
        lines.append(f"    words = carray(table, ({stop},))")
        sizes = ", ".join(f"words[{words + 1 + axis}]" for axis in range(type.ndim))
        comma = "," if type.ndim == 1 else ""
        lines.append(f"    a{i} = carray(pointer(words[{words}], kind{i}), ({sizes}{comma}))")
        names.append(f"a{i}")
        words = stop
    count = len(operands)
    given = [
        f"{name}[()]" if type.ndim == 0 else name
        for name, type in zip(names, operands, strict=False)
    ]
    if writes:
        body = [f"function({', '.join([*given, *names[count:]])})"]
    elif len(results) == 1:
        body = [f"{names[count]}[...] = function({', '.join(given)})"]
    else:
        body = [f"found = function({', '.join(given)})"]
        body += [f"{name}[...] = found[{k}]" for k, name in enumerate(names[count:])]
    lines += ["    try:", *("        " + line for line in body), "    except Exception:"]
    lines += ["        status = carray(pointer(words[1], status_kind), (1,))"]
    lines += ["        status[0] = words[2]"]
    return "\n".join(lines) + "\n"
