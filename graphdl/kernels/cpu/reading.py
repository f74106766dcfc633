"""The text of a kernel as Numba's intermediate representation, which Numba then types and lowers.

Numba reads functions from their bytecode, follows it with a stack of its own, and undoes what each
version of Python made of loops and calls: that took more time than the typing of a kernel. The text
of kernels is a small part of Python, so it is read here from its syntax tree: assignments,
`for ... in range(...)`, `while`, `if`, calls, operators, and elements of pointers. Whatever else
stands in a text is refused with its line.
"""

from __future__ import annotations

import ast
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from numba.core import ir

#: Says where a way out of a block leads, when that is known.
Leave = Callable[[int], None]

#: The expressions of a loop, in place of Numba's iterators, which LLVM has to take apart again: to
#: start it, whether it has another turn, and the index of this turn.
LOOP, MORE, NEXT = "loop", "more", "next"

_BINARY: Mapping[type[ast.operator], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: Mapping[type[ast.unaryop], Callable[..., Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def function_ir(identity: Any, text: ast.FunctionDef, known: Mapping[str, Any]) -> ir.FunctionIR:
    """The function that the syntax tree `text` is, over the names that are `known` to it.

    A variable that is assigned in several places has one type, that of all: where they differ,
    `numba.core.ssa.reconstruct_ssa` tells its versions apart. Raises NotImplementedError, naming
    the line, at anything that is not in the text of kernels, and at a name that nothing defines.
    """
    reader = _Reader(identity.filename, text, known)
    reader.read()
    names = [argument.arg for argument in text.args.args]
    first = ir.Loc(identity.filename, text.lineno)
    return ir.FunctionIR(
        reader.blocks, False, identity, first, defaultdict(list), len(names), names
    )


class _Reader:
    """Reads one function, block by block, in the order of the text."""

    def __init__(self, filename: str, text: ast.FunctionDef, known: Mapping[str, Any]) -> None:
        self.filename = filename
        self.text = text
        self.known = known
        self.blocks: dict[int, ir.Block] = {}
        self.loc = ir.Loc(filename, text.lineno)
        self.scope = ir.Scope(None, self.loc)
        self.variables: dict[str, ir.Var] = {}
        self.temporaries = 0
        self.loops: list[tuple[list[Leave], list[Leave]]] = []  # the ways on, and out
        self.begin()

    def read(self) -> None:
        self.names = {
            node.id
            for node in ast.walk(self.text)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for index, argument in enumerate(self.text.args.args):
            self.names.add(argument.arg)
            self.assign(self.variable(argument.arg), ir.Arg(argument.arg, index, self.loc))
        self.statements(self.text.body)
        if not self.block.is_terminated:
            self.end_function()

    # -- blocks and variables ----------------------------------------------------------------------

    def begin(self) -> int:
        """Go on in a new block; returns its label, which grows along the text."""
        label = len(self.blocks)
        self.block = self.blocks[label] = ir.Block(self.scope, self.loc)
        self.loaded: dict[Any, ir.Var] = {}  # constants and known names of this block
        return label

    def begin_at(self, ways: Sequence[Leave]) -> int:
        """Go on in a new block, which `ways` lead to."""
        label = self.begin()
        for leave in ways:
            leave(label)
        return label

    def end(self, terminator: Any) -> None:
        self.block.append(terminator)

    def jump(self) -> Leave:
        """Leave this block for another one."""
        jump = ir.Jump(-1, self.loc)
        self.end(jump)
        return partial(setattr, jump, "target")

    def ways_on(self) -> Sequence[Leave]:
        """The way on from this block, if it has not been left already."""
        return [] if self.block.is_terminated else [self.jump()]

    def end_function(self) -> None:
        self.end(ir.Return(self.temporary(ir.Const(None, self.loc)), self.loc))

    def variable(self, name: str) -> ir.Var:
        if name not in self.variables:
            self.variables[name] = self.scope.define(name, self.loc)
        return self.variables[name]

    def assign(self, target: ir.Var, value: Any) -> None:
        self.block.append(ir.Assign(value, target, self.loc))

    def temporary(self, value: Any) -> ir.Var:
        self.temporaries += 1
        target = self.variable(f"${self.temporaries}")
        self.assign(target, value)
        return target

    def once(self, key: Any, value: Any) -> ir.Var:
        """A temporary for what is the same wherever in the block it stands."""
        if key not in self.loaded:
            self.loaded[key] = self.temporary(value)
        return self.loaded[key]

    def refused(self, node: ast.AST, what: str) -> NotImplementedError:
        line = getattr(node, "lineno", self.loc.line)
        return NotImplementedError(f"{what} (line {line})")

    # -- statements --------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.block.is_terminated:
                return  # what stands behind `continue`, `break` or `return`
            self.loc = ir.Loc(self.filename, statement.lineno)
            read = getattr(self, f"read_{type(statement).__name__}", None)
            if read is None:
                raise self.refused(statement, f"{type(statement).__name__} is not in kernels")
            read(statement)

    def read_Assign(self, statement: ast.Assign) -> None:
        if len(statement.targets) > 1:
            raise self.refused(statement, "a value is assigned to one place at a time")
        [target] = statement.targets
        if not isinstance(target, ast.Tuple):
            self.store(target, statement.value)
            return
        if not isinstance(statement.value, ast.Tuple):
            raise self.refused(statement, "only a tuple that is written out can be unpacked")
        pairs = list(zip(target.elts, statement.value.elts, strict=True))
        values = [self.temporary(self.expression(value)) for _, value in pairs]
        for (place, _), value in zip(pairs, values, strict=True):
            self.store_value(place, value)

    def read_AugAssign(self, statement: ast.AugAssign) -> None:
        function = _BINARY[type(statement.op)]
        target = statement.target
        if isinstance(target, ast.Subscript):
            pointer, index = self.value(target.value), self.value(target.slice)
            old = self.temporary(ir.Expr.getitem(pointer, index, self.loc))
            new = ir.Expr.binop(function, old, self.value(statement.value), self.loc)
            self.block.append(ir.SetItem(pointer, index, self.temporary(new), self.loc))
        elif isinstance(target, ast.Name):
            old, step = self.variable(target.id), self.value(statement.value)
            self.assign(old, ir.Expr.binop(function, old, step, self.loc))
        else:
            raise self.refused(statement, "only a variable or an element can be assigned to")

    def read_Expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):  # a docstring
            self.value(statement.value)

    def read_Pass(self, statement: ast.Pass) -> None:
        """Nothing."""

    def read_For(self, statement: ast.For) -> None:
        if not isinstance(statement.target, ast.Name) or statement.orelse:
            raise self.refused(statement, "a loop has one variable, and no else")
        if not isinstance(statement.iter, ast.Call):
            raise self.refused(statement, "a loop is over a call of range or lanes")
        loc = self.loc
        loop = self.temporary(ir.Expr(LOOP, loc, value=self.value(statement.iter)))
        header = self.begin_at([self.jump()])
        turn = ir.Branch(self.temporary(ir.Expr(MORE, loc, value=loop)), -1, -1, loc)
        self.end(turn)
        turn.truebr = self.begin()
        self.assign(self.variable(statement.target.id), ir.Expr(NEXT, loc, value=loop))
        repeats, breaks = self.body_of_loop(statement.body)
        for repeat in repeats:
            repeat(header)
        self.loc = loc
        turn.falsebr = self.begin_at(breaks)

    def read_While(self, statement: ast.While) -> None:
        if statement.orelse:
            raise self.refused(statement, "a loop has no else")
        # The test stands before the loop and again at its end, where LLVM would move it to: it
        # does not if the test is an `and` of loads (the inner loop of an insertion sort).
        loc = self.loc
        go_on, leave = self.fork(statement.test)
        body = self.begin_at(go_on)
        repeats, breaks = self.body_of_loop(statement.body)
        self.loc = loc
        done: Sequence[Leave] = []
        if repeats:
            self.begin_at(repeats)
            again, done = self.fork(statement.test)
            for way in again:
                way(body)
        self.begin_at([*leave, *done, *breaks])

    def body_of_loop(self, body: Sequence[ast.stmt]) -> tuple[Sequence[Leave], Sequence[Leave]]:
        """Read the statements of a loop: the ways to its next turn, and out of it."""
        self.loops.append(([], []))
        self.statements(body)
        repeats, breaks = self.loops.pop()
        return ([*self.ways_on(), *repeats]), breaks

    def read_Continue(self, statement: ast.Continue) -> None:
        self.loops[-1][0].append(self.jump())

    def read_Break(self, statement: ast.Break) -> None:
        self.loops[-1][1].append(self.jump())

    def read_Return(self, statement: ast.Return) -> None:
        if statement.value is not None:
            raise self.refused(statement, "a kernel returns nothing")
        self.end_function()

    def read_If(self, statement: ast.If) -> None:
        loc = self.loc
        yes, no = self.fork(statement.test)
        self.begin_at(yes)
        self.statements(statement.body)
        ends = [*self.ways_on()]
        if statement.orelse:
            self.begin_at(no)
            self.statements(statement.orelse)
            no = self.ways_on()
        self.loc = loc
        if ends or no:
            self.begin_at([*ends, *no])

    def fork(self, test: ast.expr) -> tuple[Sequence[Leave], Sequence[Leave]]:
        """Leave this block by a condition: the ways out where it is true, and where it is false.

        `and` and `or` are branches of their own, as in Python.
        """
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yes, no = self.fork(test.operand)
            return no, yes
        if isinstance(test, ast.BoolOp):
            is_or = isinstance(test.op, ast.Or)
            decided: list[Leave] = []
            for node in test.values[:-1]:
                yes, no = self.fork(node)
                decided += yes if is_or else no
                self.begin_at(no if is_or else yes)
            yes, no = self.fork(test.values[-1])
            return ([*decided, *yes], no) if is_or else (yes, [*decided, *no])
        branch = ir.Branch(self.value(test), -1, -1, self.loc)
        self.end(branch)
        return [partial(setattr, branch, "truebr")], [partial(setattr, branch, "falsebr")]

    def store(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.assign(self.variable(target.id), self.expression(value))
        else:  # Python evaluates the value first
            self.store_value(target, self.value(value))

    def store_value(self, target: ast.expr, value: ir.Var) -> None:
        if isinstance(target, ast.Name):
            self.assign(self.variable(target.id), value)
        elif isinstance(target, ast.Subscript):
            pointer, index = self.value(target.value), self.value(target.slice)
            self.block.append(ir.SetItem(pointer, index, value, self.loc))
        else:
            raise self.refused(target, "only a variable or an element can be assigned to")

    # -- expressions -------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> ir.Var:
        """The variable that holds an expression."""
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.variable(node.id)
        if isinstance(node, ast.Name):
            return self.once(node.id, self.known_name(node))
        constant = _constant(node)
        if constant is not None:
            return self.once((type(constant), repr(constant)), ir.Const(constant, self.loc))
        return self.temporary(self.expression(node))

    def known_name(self, node: ast.Name) -> ir.Global:
        if node.id not in self.known:
            raise self.refused(node, f"nothing defines {node.id}")
        return ir.Global(node.id, self.known[node.id], self.loc)

    def expression(self, node: ast.expr) -> Any:
        """What may stand on the right of an assignment."""
        if isinstance(node, ast.Name):
            return self.variable(node.id) if node.id in self.names else self.known_name(node)
        constant = _constant(node)
        if constant is not None:
            return ir.Const(constant, self.loc)
        if isinstance(node, ast.Call) and not node.keywords:
            function, arguments = self.value(node.func), list(map(self.value, node.args))
            return ir.Expr.call(function, arguments, (), self.loc)
        if isinstance(node, ast.Subscript):
            pointer, index = self.value(node.value), self.value(node.slice)
            return ir.Expr.getitem(pointer, index, self.loc)
        if isinstance(node, ast.BinOp):
            left, right = self.value(node.left), self.value(node.right)
            return ir.Expr.binop(_BINARY[type(node.op)], left, right, self.loc)
        if isinstance(node, ast.UnaryOp):
            return ir.Expr.unary(_UNARY[type(node.op)], self.value(node.operand), self.loc)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = self.value(node.left), self.value(node.comparators[0])
            if type(node.ops[0]) in _COMPARISONS:
                return ir.Expr.binop(_COMPARISONS[type(node.ops[0])], left, right, self.loc)
        if isinstance(node, ast.BoolOp):
            return self.one_of(node.values, stop_at=isinstance(node.op, ast.Or))
        if isinstance(node, ast.IfExp):
            return self.either(node)
        raise self.refused(node, f"{ast.unparse(node)} is not in kernels")

    def one_of(self, values: Sequence[ast.expr], stop_at: bool) -> ir.Var:
        """`a and b` or `a or b`: the first that is true, or false, else the last."""
        result = self.temporary(self.expression(values[0]))
        decided: list[Leave] = []
        for node in values[1:]:
            branch = ir.Branch(result, -1, -1, self.loc)
            self.end(branch)
            stop, go_on = ("truebr", "falsebr") if stop_at else ("falsebr", "truebr")
            decided.append(partial(setattr, branch, stop))
            setattr(branch, go_on, self.begin())
            self.assign(result, self.expression(node))
        self.begin_at([*decided, self.jump()])
        return result

    def either(self, node: ast.IfExp) -> ir.Var:
        yes, no = self.fork(node.test)
        self.begin_at(yes)
        result = self.temporary(self.expression(node.body))
        first = self.jump()
        self.begin_at(no)
        self.assign(result, self.expression(node.orelse))
        self.begin_at([first, self.jump()])
        return result


def _constant(node: ast.expr) -> int | float | bool | None:
    """The number that an expression of numbers alone is, as Python's own compiler would see it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float) else None
    if isinstance(node, ast.UnaryOp):
        operand = _constant(node.operand)
        return None if operand is None else _UNARY[type(node.op)](operand)
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left), _constant(node.right)
        if left is not None and right is not None:
            return _BINARY[type(node.op)](left, right)  # type: ignore[no-any-return]
    return None


def used_in(value: Any) -> Iterator[str]:
    """The variables that an instruction, or the right side of an assignment, reads."""
    if isinstance(value, ir.Var):
        yield value.name
    elif isinstance(value, ir.Inst):
        for variable in value.list_vars():
            yield variable.name
