"""A program as a function that Numba compiles into its callers. Imports Numba.

What `function` returns is an ordinary Numba function of generated text:

    def program(x, y, out=None):
        return call(x, y, out)

`call` is typed by an overload, which compares Numba's types of the arguments with those that the
program was made for, and says in a typing error what differs. The body that it hands to Numba
checks the shapes, allocates the results, and calls the program's image by an intrinsic that puts
the addresses of all arrays on the stack. So LLVM sees a call of a C function, and little else.
Arguments are passed one by one all the way: Numba compiles tuples of many arrays slowly.

The address of an image is of this process: Numba is told so, and does not write such code to disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from graphdl.errors import ArgumentError, ShapeError
from graphdl.kernels.cpu import call_code
from graphdl.kernels.cpu.image import LoadedImage
from graphdl.native.nesting import Nest, identifiers
from graphdl.native.signature import Argument, Signature
from graphdl.types import TensorType

_WORD = ir.IntType(64)
#: What a Python number of each kind may be in nopython code.
_NUMBERS: dict[str, tuple[type, ...]] = {
    "f": (types.Float, types.Integer, types.Boolean),
    "i": (types.Integer, types.Boolean),
    "b": (types.Boolean,),
}


def function(image: LoadedImage, signature: Signature) -> Any:
    """The program as a Numba function."""
    roots = [f"arg{i}" for i in range(len(signature.takes))]
    for i, nest in enumerate(signature.takes):
        leaf = _first(nest)
        if leaf is not None:
            roots[i] = signature.arguments[leaf].name.partition("[")[0]
    names = identifiers(roots, ("out",))

    given = "".join(f"{name}, " for name in names)
    text = (
        f"def call({given}out):\n    raise NotImplementedError('only nopython code calls this')\n"
        f"def program({given}out=None):\n    return call({given}out)\n"
        f"def typed({given}out):\n    return body_of(({given}), out)\n"
    )

    def body_of(arguments: tuple[types.Type, ...], out: types.Type) -> Any:
        body = _Body(image, signature, names)
        exec(body.text(arguments, out), body.scope)
        return body.scope["body"]

    scope: dict[str, Any] = {"body_of": body_of}
    exec(text, scope)
    overload(scope["call"], strict=False)(scope["typed"])
    program = scope["program"]
    program.__doc__ = _described(signature)
    return numba.njit(program)


def _described(signature: Signature) -> str:
    takes = ", ".join(f"{leaf.name}: {leaf.type}" for leaf in signature.arguments)
    gives = ", ".join(str(leaf.type) for leaf in signature.results)
    return f"({takes}) -> ({gives})"


def _first(nest: Nest) -> int | None:
    """The first leaf of a tree."""
    while isinstance(nest, tuple):
        nest = next((item for item in nest if item not in (None, ())), None)
    return nest


# ----------------------------------------------------------------------------------------- typing


class _Body:
    """The text of the function of (arguments, out) for arguments of certain Numba types."""

    def __init__(self, image: LoadedImage, signature: Signature, names: Sequence[str]) -> None:
        self._signature = signature
        self._lines: list[str] = []
        self._leaves: dict[int, str] = {}
        self._made: dict[int, str] = {}
        self._scalars: list[int] = []
        self._image = image
        self._names = names
        self.scope: dict[str, Any] = {"empty": np.empty}

    def text(self, arguments: Sequence[types.Type], out: types.Type) -> str:
        """The text; TypingError where the types are not what the program takes."""
        signature = self._signature
        for nest, type, name in zip(signature.takes, arguments, self._names, strict=True):
            self._take(nest, type, name)
        outs = {} if isinstance(out, (types.NoneType, types.Omitted)) else self._outs(out)
        self._make(outs)
        given = [self._leaves[i] for i in range(len(signature.arguments))]
        written = [
            self._made[i]
            for i, result in enumerate(signature.results)
            if result.argument is None and i not in self._scalars
        ]
        scalars = frozenset(self._scalars)
        self.scope["run"] = _flat(
            _runner(self._image, signature, scalars), len(given), len(written)
        )
        self._check_sharing(set(outs))
        self._lines.append(f"    found = run({', '.join([*given, *written])})")
        self._lines += ["    if found[0] != 0:", *self._failures()]
        for place, i in enumerate(self._scalars):
            self._made[i] = f"found[{place + 1}]"
        self._lines.append(f"    return {self._nested(signature.gives)}")
        return f"def body({', '.join([*self._names, 'out'])}):\n" + "\n".join(self._lines)

    def _tuple(self, items: Any) -> str:
        return "(" + "".join(f"{item}, " for item in items) + ")"

    # arguments

    def _take(self, nest: Nest, type: types.Type, path: str) -> None:
        """Check the types of a tree of arguments, and name its leaves."""
        if nest is None:
            if not isinstance(type, (types.NoneType, types.Omitted)):
                raise TypingError(f"argument {path} is None for this program, not {type}")
        elif isinstance(nest, tuple):
            self._open(nest, type, f"argument {path}")
            for i, item in enumerate(nest):
                self._take(item, type[i], f"{path}[{i}]")
        else:
            argument = self._signature.arguments[nest]
            self._leaves[nest] = f"a{nest}"
            self._lines.append(f"    a{nest} = {path}")
            if not self._is_number(argument, type):
                self._check_array(f"argument {argument.name}", argument.type, type, f"a{nest}")
                if argument.donated and not type.mutable:
                    raise TypingError(
                        f"argument {argument.name} is donated: a result is written over it, and "
                        f"{type} cannot be written to"
                    )

    def _open(self, nest: tuple[Nest, ...], type: types.Type, what: str) -> None:
        if not isinstance(type, types.BaseTuple):
            raise TypingError(
                f"{what} must be a tuple of {len(nest)}, not {type} (lists and dicts "
                f"are tuples in nopython code, a dict by its sorted keys)"
            )
        if len(type) != len(nest):
            raise TypingError(f"{what} must have {len(nest)} items, not {len(type)}")

    def _is_number(self, argument: Argument, type: types.Type) -> bool:
        """Whether a leaf is given as a number, as it may be; an error where it must be."""
        own = numba.from_dtype(argument.type.dtype)
        plain = types.unliteral(type)
        if argument.number:
            if not isinstance(plain, _NUMBERS[argument.type.dtype.kind]):
                raise TypingError(
                    f"argument {argument.name} is a number of Python's that {own} can hold, "
                    f"not {type}"
                )
            return True
        return bool(argument.type.shape == () and plain == own)

    def _check_array(self, what: str, wanted: TensorType, type: types.Type, name: str) -> None:
        """That a type is an array as the program reads it; the shape is checked at run time."""
        own = numba.from_dtype(wanted.dtype)
        number = " or a number" if wanted.shape == () else ""
        if not isinstance(type, types.Array) or type.dtype != own or type.ndim != wanted.ndim:
            axes = f"{wanted.ndim} ax{'i' if wanted.ndim == 1 else 'e'}s"
            raise TypingError(f"{what} must be an array of {own}, {axes}{number}, not {type}")
        if type.layout != "C" or not type.aligned:
            raise TypingError(
                f"{what} must be contiguous, row by row, and aligned (np.ascontiguousarray makes "
                f"it so), not {type}"
            )
        differs = " or ".join(
            f"{name}.shape[{axis}] != {size}" for axis, size in enumerate(wanted.shape)
        )
        if differs:
            self._raise(f"    if {differs}:", ShapeError(f"{what} must have shape {wanted.shape}"))

    def _raise(self, condition: str, error: BaseException) -> None:
        self._lines += [condition, f"        {self._raising(error)}"]

    def _raising(self, error: BaseException) -> str:
        kind = type(error)
        self.scope[kind.__name__] = kind
        return f"raise {kind.__name__}({str(error)!r})"

    # results

    def _outs(self, out: types.Type) -> dict[int, str]:
        """The arrays that are given for results, by the result; and their checks."""
        found: dict[int, str] = {}
        pending: list[tuple[Nest, types.Type, str]] = [(self._signature.gives, out, "out")]
        while pending:
            nest, type, path = pending.pop()
            if isinstance(type, (types.NoneType, types.Omitted)):
                continue
            if nest is None:
                raise TypingError(f"{path} is None for this program, not {type}")
            if isinstance(nest, tuple):
                self._open(nest, type, path)
                pending += [(item, type[i], f"{path}[{i}]") for i, item in enumerate(nest)]
                continue
            result = self._signature.results[nest]
            if result.argument is not None:
                raise TypingError(
                    f"{path} must be None: this result is written over the donated argument "
                    f"{self._signature.arguments[result.argument].name}"
                )
            name = f"o{nest}"
            self._lines.append(f"    {name} = {path}")
            self._check_array(path, result.type, type, name)
            if not type.mutable:
                raise TypingError(f"{path} cannot be written to: {type}")
            found[nest] = name
        return found

    def _make(self, outs: dict[int, str]) -> None:
        """A name for each result; what is a number by itself, `run` returns."""
        for i, result in enumerate(self._signature.results):
            if result.argument is not None:
                self._made[i] = self._leaves[result.argument]
            elif i in outs:
                self._made[i] = outs[i]
            elif result.type.shape == ():
                self._scalars.append(i)
            else:
                self._made[i] = f"r{i}"
                self.scope[f"dtype{i}"] = result.type.dtype
                self._lines.append(f"    r{i} = empty({result.type.shape}, dtype{i})")

    def _check_sharing(self, outs: set[int]) -> None:
        """What is written must not lie where something else is read or written."""
        signature = self._signature
        written = [self._made[i] for i in sorted(outs)]
        written += [f"a{i}" for i, x in enumerate(signature.arguments) if x.donated]
        if not written:
            return
        read = [f"a{i}" for i, x in enumerate(signature.arguments) if not (x.donated or x.number)]
        error = ArgumentError(
            "out= and donated arguments must not share memory with each other or with other "
            "arguments"
        )
        self.scope["disjoint"] = _flat(_disjoint, len(written), len(read))
        self._raise(f"    if not disjoint({', '.join(written + read)}):", error)

    def _failures(self) -> list[str]:
        lines = []
        for code, error in self._signature.failures.items():
            lines += [f"        if found[0] == {code}:", f"            {self._raising(error)}"]
        return [*lines, "        raise RuntimeError('the program failed')"]

    def _nested(self, nest: Nest) -> str:
        if nest is None:
            return "None"
        if isinstance(nest, tuple):
            return self._tuple(map(self._nested, nest))
        return self._made[nest]


def _flat(typing: Any, first: int, second: int) -> Any:
    """The intrinsic of so many arguments that `typing` and its lowering see as two tuples."""
    names = "".join(f"x{i}, " for i in range(first + second))
    text = (
        f"def flat(typing_context, {names}):\n"
        f"    given = ({names})\n"
        f"    return typing(given[:{first}], given[{first}:])\n"
    )
    scope: dict[str, Any] = {"typing": typing}
    exec(text, scope)
    return intrinsic(scope["flat"])


# --------------------------------------------------------------------------------------- lowering


def _runner(image: LoadedImage, signature: Signature, scalars: frozenset[int]) -> Any:
    """The typing of (arguments, results that are arrays) -> (code, results that are numbers).

    `scalars` says which results are returned as numbers.
    """
    _KEPT.append(image)
    new = [
        (numba.from_dtype(result.type.dtype), i not in scalars)
        for i, result in enumerate(signature.results)
        if result.argument is None
    ]
    numbers = [kind for kind, is_array in new if not is_array]

    def run(arguments: Sequence[types.Type], written: Sequence[types.Type]) -> Any:
        returned = types.Tuple([types.int64, *numbers])

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            places = [
                _place(context, builder, type, value, argument)
                for type, value, argument in zip(
                    arguments, values[: len(arguments)], signature.arguments, strict=True
                )
            ]
            arrays = iter(
                [
                    _data(context, builder, type, value)
                    for type, value in zip(written, values[len(arguments) :], strict=True)
                ]
            )
            slots = []
            for kind, is_array in new:
                if is_array:
                    places.append(next(arrays))
                    continue
                slot = cgutils.alloca_once(builder, context.get_data_type(kind))
                slots.append((kind, slot))
                places.append(builder.ptrtoint(slot, _WORD))
            code = _call(context, builder, image, places)
            items = [code]
            for kind, slot in slots:
                model = context.data_model_manager[kind]
                items.append(model.from_data(builder, builder.load(slot)))
            return context.make_tuple(builder, returned, items)

        return returned(*arguments, *written), codegen

    return run


#: Images that compiled code may call: they are never dropped, as such code is not.
_KEPT: list[LoadedImage] = []


def _data(context: Any, builder: Any, type: types.Array, value: Any) -> Any:
    """The address of an array's elements."""
    return builder.ptrtoint(context.make_array(type)(context, builder, value).data, _WORD)


def _place(context: Any, builder: Any, type: types.Type, value: Any, argument: Argument) -> Any:
    """The address of an argument's elements; a number is put on the stack."""
    if isinstance(type, types.Array):
        return _data(context, builder, type, value)
    own = numba.from_dtype(argument.type.dtype)
    number = context.cast(builder, value, types.unliteral(type), own)
    stored = context.data_model_manager[own].as_data(builder, number)
    slot = cgutils.alloca_once_value(builder, stored)
    return builder.ptrtoint(slot, _WORD)


def _call(context: Any, builder: Any, image: LoadedImage, places: Sequence[Any]) -> Any:
    bases = cgutils.alloca_once(builder, _WORD, max(len(places), 1))
    for i, place in enumerate(places):
        builder.store(place, builder.gep(bases, [_WORD(i)]))
    pointers = [
        context.add_dynamic_addr(builder, address, info=what)
        for what, address in (
            ("graphdl call", call_code.functions()["call"]),
            ("graphdl image", image.address),
        )
    ]
    kind = ir.FunctionType(_WORD, [_WORD, _WORD])
    function = builder.bitcast(pointers[0], kind.as_pointer())
    arguments = [builder.ptrtoint(pointers[1], _WORD), builder.ptrtoint(bases, _WORD)]
    return builder.call(function, arguments)


def _disjoint(written: Sequence[types.Type], read: Sequence[types.Type]) -> Any:
    """Whether arrays that are written share no memory with each other, nor with those read."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pairs = [
            (type, value)
            for type, value in zip((*written, *read), values, strict=True)
            if isinstance(type, types.Array)
        ]
        rows = cgutils.alloca_once(builder, _WORD, 2 * len(pairs))
        for i, (type, value) in enumerate(pairs):
            array = context.make_array(type)(context, builder, value)
            nbytes = builder.mul(array.nitems, array.itemsize)
            for k, word in enumerate((builder.ptrtoint(array.data, _WORD), nbytes)):
                builder.store(word, builder.gep(rows, [_WORD(2 * i + k)]))
        address = context.add_dynamic_addr(
            builder, call_code.functions()["overlap"], info="graphdl overlap"
        )
        kind = ir.FunctionType(_WORD, [_WORD, _WORD, _WORD])
        found = builder.call(
            builder.bitcast(address, kind.as_pointer()),
            [builder.ptrtoint(rows, _WORD), _WORD(len(written)), _WORD(len(pairs))],
        )
        return builder.icmp_signed("==", found, _WORD(0))

    return types.boolean(*written, *read), codegen
