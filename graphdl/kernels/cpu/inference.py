"""The types of the variables of a kernel, by Numba's rules for its operators and our intrinsics.

Numba's own inference sets up a network of constraints and solves it several times over, since types
may have to be guessed and refined. In a kernel they flow one way, from the arguments along the
text: one walk finds them, and another one where a loop widens the type of what it read.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from numba.core import ir, types
from numba.core.errors import TypingError

from graphdl.kernels.cpu import intrinsics, reading


class Inferred(Struct, frozen=True, eq=False):
    """What lowering wants to know.

    typemap: variable -> type; an argument `x` of the function is `arg.x`. calltypes: expression ->
    signature. is_uniform: whether each variable has the type of every value that is assigned to it.
    Where one does not, its versions (what is used before the next assignment) may each have a type
    of its own, and have to be told apart.
    """

    typemap: dict[str, Any]
    calltypes: dict[Any, Any]
    is_uniform: bool


def infer(context: Any, function: ir.FunctionIR, arguments: Sequence[Any]) -> Inferred:
    """The types of a function that is called with `arguments`, in a typing context of Numba's.

    Raises TypingError, naming the line, where a function or an operator does not take what it is
    given, or a variable is nothing certain.
    """
    names = (f"arg.{name}" for name in function.arg_names)
    typemap: dict[str, Any] = dict(zip(names, arguments, strict=True))
    walk = _Walk(context, typemap)
    instructions = [i for _, block in sorted(function.blocks.items()) for i in block.body]
    while walk.goes_on():
        for instruction in instructions:
            walk.instruction(instruction)
    return Inferred(typemap, walk.calltypes, walk.is_uniform)


class _Walk:
    """One walk after the other over the instructions of a function.

    found: whether this walk has found a type. widened: whether it has made one wider. missing: what
    it has read that had no type yet.
    """

    def __init__(self, context: Any, typemap: dict[str, Any]) -> None:
        self.context = context
        self.typemap = typemap
        self.calltypes: dict[Any, Any] = {}
        self.found = self.widened = True
        self.missing: list[ir.Var] = []
        self.is_uniform = True

    def goes_on(self) -> bool:
        """Begin another walk, if one is needed."""
        if self.missing and not (self.found or self.widened):
            unknown = self.missing[0]
            raise TypingError(f"{unknown.name} is read before it is assigned", loc=unknown.loc)
        if not (self.widened or self.missing):
            return False
        self.found, self.widened, self.missing, self.is_uniform = False, False, [], True
        return True

    def instruction(self, instruction: Any) -> None:
        if isinstance(instruction, ir.Assign):
            kind = self.value(instruction.value, instruction.loc)
            if kind is not None:
                self.assign(instruction.target.name, kind, instruction.loc)
        elif isinstance(instruction, ir.SetItem):
            operands = (instruction.target, instruction.index, instruction.value)
            self.called(instruction, operator.setitem, operands, instruction.loc)

    def assign(self, name: str, kind: Any, loc: Any) -> None:
        known = self.typemap.get(name)
        if known is None:
            self.typemap[name] = kind
            self.found = True
        elif known != kind:
            wider = self.context.unify_pairs(known, kind)
            if wider is None:
                self.is_uniform = False
                return
            if wider != known:
                self.typemap[name] = wider
                self.widened = True
            if types.unliteral(wider) != types.unliteral(kind):
                self.is_uniform = False

    def value(self, value: Any, loc: Any) -> Any:
        """The type of the right side of an assignment, None if it is not known yet."""
        if isinstance(value, ir.Var):
            return self.of(value)
        if isinstance(value, ir.Const | ir.Global):
            literal = types.maybe_literal(value.value)
            return literal or self.context.resolve_value_type(value.value)
        if isinstance(value, ir.Arg):
            return self.typemap[f"arg.{value.name}"]
        return self.expression(value, loc)

    def expression(self, value: ir.Expr, loc: Any) -> Any:
        if value.op == "call":
            function = self.of(value.func)
            return None if function is None else self.called(value, function, value.args, loc)
        if value.op == "getitem":
            return self.called(value, operator.getitem, (value.value, value.index), loc)
        if value.op == "binop":
            return self.called(value, value.fn, (value.lhs, value.rhs), loc)
        if value.op == "unary":
            return self.called(value, value.fn, (value.value,), loc)
        if value.op == "phi":
            return self.joined([x for x in value.incoming_values if x is not ir.UNDEFINED])
        if value.op == reading.LOOP:
            loop = self.of(value.value)
            if loop is not None and not isinstance(loop, intrinsics.Loop):
                raise TypingError(f"a loop is over range or lanes, not {loop}", loc=loc)
            return loop
        return types.int64 if value.op == reading.NEXT else types.boolean

    def called(self, inst: Any, function: Any, operands: Sequence[ir.Var], loc: Any) -> Any:
        """The type of a result; writes the signature down."""
        kinds = tuple(map(self.of, operands))
        if None in kinds:
            return None
        try:
            signature = self.context.signature(function, kinds)
        except TypingError as error:
            raise TypingError(str(error), loc=loc) from error
        if signature is None:
            given = ", ".join(map(str, kinds))
            raise TypingError(f"{function} does not take ({given})", loc=loc)
        self.calltypes[inst] = signature
        return signature.return_type

    def joined(self, values: Sequence[ir.Var]) -> Any:
        kinds = [kind for kind in map(self.of, values) if kind is not None]
        joined = self.context.unify_types(*kinds) if kinds else None
        if kinds and joined is None:
            given = " and ".join(map(str, kinds))
            raise TypingError(f"{values[0].unversioned_name} cannot be {given}", loc=values[0].loc)
        return joined

    def of(self, variable: ir.Var) -> Any:
        kind = self.typemap.get(variable.name)
        if kind is None:
            self.missing.append(variable)
        return kind
