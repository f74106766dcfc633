"""Plain loops and branches as native ones: what `gd.compile(loops="native")` does to a function.

The source of the function is rewritten, statement by statement:

    for i in range(n):            def body(i, x, s):
        x[i] = s * 2                  x[i] = s * 2
        s = s + x[i]                  s = s + x[i]
                                      return x, s
                                  x, s = for_range(body, (n,), (x, s))

and likewise `while` and `if`; `and`, `or`, `not`, `a < b < c` and `a if c else b` become calls,
since Python asks arrays for their truth there. What the calls do is in
graphdl.transforms.statements: they decide, when the function runs, whether to be native. The new
code keeps file names and line numbers, so that errors and graphs name the user's lines.

`break` and `continue` become flags that the rest of the body and the loop's condition ask for; an
`if` that returns takes what follows it as its other branch. What cannot be converted stays Python,
and says why if it meets a traced condition.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphdl.errors import UnsupportedError
from graphdl.transforms import statements

#: The name by which converted code calls graphdl.transforms.statements; others begin like it.
_RUNTIME = "__graphdl__"
_LOOPS = (ast.For, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: Methods that change an array, and those that change a list.
_CHANGING = ("fill", "sort", "put", "partition", "append", "extend", "insert", "pop", "update")


def with_native_loops(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its loops and branches converted.

    Raises UnsupportedError where its source cannot be read.
    """
    if not isinstance(f, types.FunctionType):
        raise UnsupportedError(
            f"loops='native' takes a function written in Python, not {f!r:.60}. For a derivative "
            f"write gd.grad(gd.compile(f, loops='native')), for a method a function of the object"
        )
    if f.__name__ == "<lambda>":
        return f  # there is no statement in it
    tree = _parsed(f)
    names = set(inspect.signature(f).parameters)
    converter = _Converter(f.__code__.co_filename, tree, names)
    tree.body = converter.block(_with_returns_last(tree.body))
    tree.decorator_list = []
    return _compiled(f, tree)


def _parsed(f: types.FunctionType) -> ast.FunctionDef:
    """The syntax tree of a function, with the line numbers of its file."""
    try:
        lines, first = inspect.getsourcelines(f)
        module = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError) as error:
        raise UnsupportedError(
            f"loops='native' needs the source of {f.__name__}, which cannot be read ({error}); "
            f"write it in a file"
        ) from error
    ast.increment_lineno(module, first - 1)
    definition = module.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise UnsupportedError(f"loops='native': {f.__name__} is no plain function")
    return definition


def _compiled(f: types.FunctionType, tree: ast.FunctionDef) -> types.FunctionType:
    """A function of the new tree, with the global names and the closure of `f`."""
    free = list(f.__code__.co_freevars)
    parameters = [ast.arg(name) for name in (_RUNTIME, *free)]
    outer = ast.FunctionDef(
        "__graphdl_outer",
        ast.arguments([], parameters, None, [], [], None, []),
        [tree, ast.Return(ast.Name(tree.name, ast.Load()))],
        [],
    )
    tree.args.defaults, tree.args.kw_defaults = [], [None for _ in tree.args.kwonlyargs]
    for argument in ast.walk(tree.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    tree.returns = None
    module = ast.fix_missing_locations(ast.Module([ast.copy_location(outer, tree)], []))
    code = compile(module, f.__code__.co_filename, "exec", dont_inherit=True)
    inner = _code_named(_code_named(code, "__graphdl_outer"), tree.name)
    cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
    cells[_RUNTIME] = types.CellType(statements)
    closure = tuple(cells[name] for name in inner.co_freevars)
    made = types.FunctionType(inner, f.__globals__, f.__name__, f.__defaults__, closure)
    made.__kwdefaults__, made.__doc__ = f.__kwdefaults__, f.__doc__
    made.__qualname__, made.__module__ = f.__qualname__, f.__module__
    made.__dict__.update(f.__dict__)
    return made


def _code_named(code: types.CodeType, name: str) -> types.CodeType:
    return next(
        constant
        for constant in code.co_consts
        if isinstance(constant, types.CodeType) and constant.co_name == name
    )


# --- returns ------------------------------------------------------------------------------------


def _always_returns(block: Sequence[ast.stmt]) -> bool:
    if not block:
        return False
    last = block[-1]
    if isinstance(last, ast.If):
        return _always_returns(last.body) and _always_returns(last.orelse)
    return isinstance(last, ast.Return)


def _with_returns_last(block: list[ast.stmt]) -> list[ast.stmt]:
    """The block with what follows an `if` that returns in the branch that does not return."""
    result: list[ast.stmt] = []
    for position, statement in enumerate(block):
        result.append(statement)
        if isinstance(statement, ast.If):
            rest = block[position + 1 :]
            body, orelse = _always_returns(statement.body), _always_returns(statement.orelse)
            if rest and body and not orelse:
                statement.orelse, rest = [*statement.orelse, *rest], []
            elif rest and orelse and not body:
                statement.body, rest = [*statement.body, *rest], []
            statement.body = _with_returns_last(statement.body)
            statement.orelse = _with_returns_last(statement.orelse)
            if not rest:
                break
    return result


# --- what a piece of code assigns ---------------------------------------------------------------


class _Assigned(ast.NodeVisitor):
    """The names that statements assign (`bound`), and those whose elements they assign."""

    def __init__(self, block: Iterable[ast.AST]) -> None:
        self.bound: dict[str, None] = {}
        self.changed: dict[str, None] = {}
        for statement in block:
            self.visit(statement)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound.setdefault(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):  # an array is changed in place, a number replaced
            self.bound.setdefault(node.target.id)
        self.visit(node.target)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.ctx, ast.Store):
            self._change(node.value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """`x.fill(0)`, `np.add.at(x, i, v)`, `np.add(x, y, out=x)`."""
        for keyword in node.keywords:
            if keyword.arg == "out":
                self._change(keyword.value)
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in _CHANGING:
                self._change(node.func.value)
            if node.func.attr in ("at", "copyto", "put_along_axis", "fill_diagonal") and node.args:
                self._change(node.args[0])
        self.generic_visit(node)

    def _change(self, node: ast.AST) -> None:
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
        if isinstance(node, ast.Name):
            self.changed.setdefault(node.id)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.bound.setdefault(node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def _comprehension(self, node: Any) -> None:
        self.visit(node.generators[0].iter)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _walk(nodes: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """The nodes of statements, without those of functions that they define."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _SCOPES):
            pending += ast.iter_child_nodes(node)


def _own_jumps(block: Iterable[ast.AST]) -> list[ast.stmt]:
    """The `break` and `continue` of the loop whose body this is."""
    found: list[ast.stmt] = []
    pending = list(block)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Break, ast.Continue)):
            found.append(node)
        elif isinstance(node, _LOOPS):
            pending += node.orelse
        elif not isinstance(node, _SCOPES):
            pending += ast.iter_child_nodes(node)
    return found


#: What a statement must not hold to be converted, and what the message says of it.
_OBSTACLES: tuple[tuple[type[ast.AST] | tuple[type[ast.AST], ...], str], ...] = (
    (ast.Return, "it returns from inside"),
    ((ast.Global, ast.Nonlocal), "it assigns to a variable of another function"),
    ((ast.Yield, ast.YieldFrom, ast.Await), "it yields"),
    (ast.Delete, "it deletes a variable"),
    ((ast.Import, ast.ImportFrom), "it imports"),
    (ast.Raise, "it raises an error, which no value of an array can decide"),
)


def _obstacle(block: Sequence[ast.stmt], foreign: set[str]) -> str:
    """Why statements cannot become a function of their variables; empty if they can."""
    for node in _walk(block):
        for kinds, reason in _OBSTACLES:
            if isinstance(node, kinds):
                return f"{reason} (line {node.lineno})"  # type: ignore[attr-defined]
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            return f"it assigns to an attribute, {ast.unparse(node)} (line {node.lineno})"
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in foreign:
            return f"it assigns to {node.id!r} of another function (line {node.lineno})"
    return ""


# --- the conversion -----------------------------------------------------------------------------


def _load(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _tuple(names: Sequence[str], context: type[ast.expr_context] = ast.Load) -> ast.expr:
    return ast.Tuple([ast.Name(name, context()) for name in names], context())


def _runtime(function: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(_load(_RUNTIME), function, ast.Load()), list(args), [])


def _texts(names: Sequence[str]) -> ast.expr:
    return ast.Tuple([ast.Constant(name) for name in names], ast.Load())


def _assign(target: ast.expr, value: ast.expr) -> ast.stmt:
    return ast.Assign([target], value)


def _function(name: str, parameters: Sequence[str], body: list[ast.stmt]) -> ast.stmt:
    arguments = ast.arguments([], [ast.arg(p) for p in parameters], None, [], [], None, [])
    return ast.FunctionDef(name, arguments, body or [ast.Pass()], [])


def _thunk(value: ast.expr) -> ast.expr:
    """`lambda: value`."""
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), value)


class _Converter:
    """Converts the statements of one function."""

    def __init__(self, file: str, tree: ast.FunctionDef, parameters: set[str]) -> None:
        self.file = file
        self.tree = tree
        self.parameters = parameters
        self.count = 0
        self.foreign = {
            name
            for node in _walk(tree.body)
            if isinstance(node, (ast.Global, ast.Nonlocal))
            for name in node.names
        }
        self.bound = _Assigned(tree.body).bound
        #: How often each name stands in the function, in any role.
        self.uses = _occurrences([tree])

    def name(self, what: str) -> str:
        self.count += 1
        return f"__graphdl_{what}_{self.count}"

    def block(self, statements_: Sequence[ast.stmt]) -> list[ast.stmt]:
        return [new for statement in statements_ for new in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            made = self._if(node)
        elif isinstance(node, ast.For):
            made = self._for(node)
        elif isinstance(node, ast.While):
            made = self._while(node)
        elif isinstance(node, (*_SCOPES, ast.Global, ast.Nonlocal)):
            made = [node]
        else:
            made = [self._others(node)]
        for statement in made:
            ast.copy_location(statement, node)
            ast.fix_missing_locations(statement)
        return made

    def _others(self, node: ast.stmt) -> ast.stmt:
        """A statement with blocks of its own (`with`, `try`), or with expressions only."""
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, field, self.block(value))
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, (ast.ExceptHandler, ast.match_case)):
                        item.body = self.block(item.body)
        made: ast.stmt = self._expressions(node)
        return made

    def _expressions(self, node: Any) -> Any:
        return _Expressions(self).visit(node)

    def site(self, node: ast.AST, what: str, names: Sequence[str], changed: Any) -> ast.expr:
        """The description of a statement, as an expression."""
        only = [name for name in names if name in changed.changed and name not in changed.bound]
        return _runtime(
            "Site",
            ast.Constant(what),
            ast.Constant(self.file),
            ast.Constant(node.lineno),  # type: ignore[attr-defined]
            _texts(names),
            _texts(only),
        )

    def _carried(self, node: ast.stmt, assigned: _Assigned, skip: Sequence[str] = ()) -> list[str]:
        """The variables that a statement assigns and that matter outside of it."""
        inside = _occurrences([node])
        return [
            name
            for name in {**assigned.bound, **assigned.changed}
            if name not in skip
            and (self.uses.get(name, 0) > inside.get(name, 0) or name in self.parameters)
            and (name in assigned.bound or self._is_local(name))
        ]

    def _is_local(self, name: str) -> bool:
        """Whether a name that is not bound here is a variable of this function."""
        return name in self.parameters or name in self.bound

    def _defined(self, names: Sequence[str]) -> list[ast.stmt]:
        """`try: x` / `except NameError: x = undefined("x")` for those that may have no value."""
        return [
            ast.Try(
                [ast.Expr(_load(name))],
                [
                    ast.ExceptHandler(
                        _load("NameError"),
                        None,
                        [
                            _assign(
                                ast.Name(name, ast.Store()),
                                _runtime("undefined", ast.Constant(name)),
                            )
                        ],
                    )
                ],
                [],
                [],
            )
            for name in names
            if name not in self.parameters
        ]

    # --- if -----------------------------------------------------------------------------------

    def _if(self, node: ast.If) -> list[ast.stmt]:
        returns = _always_returns(node.body) and _always_returns(node.orelse)
        assigned = _Assigned([*node.body, *node.orelse])
        names = self._carried(node, assigned)
        test = self._expressions(node.test)
        reason = _obstacle(_without_last_return(node) if returns else [node], self.foreign)
        if not reason and _own_jumps([node]):
            reason = "it breaks or continues a loop that cannot be converted"
        if not reason and not names and not returns:
            reason = "it assigns no variable that is used elsewhere"
        if reason:
            site = self.site(node, "if", (), assigned)
            node.test = _runtime("decided", site, ast.Constant(reason), test)
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
            return [node]
        true, false = self.name("true"), self.name("false")
        end: list[ast.stmt] = [] if returns else [ast.Return(_tuple(names))]
        parts = [
            *self._defined(names),
            _function(true, names, [*self.block(node.body), *end]),
            _function(false, names, [*self.block(node.orelse), *end]),
        ]
        args = [self.site(node, "if", names, assigned), test]
        args += [_load(true), _load(false), _tuple(names)]
        if returns:
            return [*parts, ast.Return(_runtime("returned", *args))]
        return [*parts, _assign(_tuple(names, ast.Store), _runtime("branch", *args))]

    # --- loops --------------------------------------------------------------------------------

    def _for(self, node: ast.For) -> list[ast.stmt]:
        if not _is_range(node.iter):
            return [self._others(node)]
        assert isinstance(node.iter, ast.Call)
        bounds = [self._expressions(bound) for bound in node.iter.args]
        assigned = _Assigned(node.body)
        reason = self._loop_obstacle(node)
        if not reason and not isinstance(node.target, ast.Name):
            reason = "its variable is no plain name"
        target = node.target.id if isinstance(node.target, ast.Name) else ""
        names = self._carried(node, assigned, skip=(target,))
        if not reason and not names:
            reason = "it assigns no variable that is used elsewhere"
        if reason:
            site = self.site(node, "for", (), assigned)
            node.iter = _runtime("steps", site, ast.Constant(reason), *bounds)
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
            return [node]
        body, flag = self._with_flags(node)
        is_used = self.uses.get(target, 0) > _occurrences([node]).get(target, 0)
        ends = self.name("bounds")
        parts: list[ast.stmt] = [
            _assign(ast.Name(ends, ast.Store()), ast.Tuple(bounds, ast.Load()))
        ]
        carried = list(names)
        if flag:
            parts.append(_assign(ast.Name(flag, ast.Store()), ast.Constant(False)))
            carried.append(flag)
        function = self.name("for")
        parts += self._defined(names)
        parts.append(_function(function, [target, *carried], [*body, ast.Return(_tuple(carried))]))
        args = [self.site(node, "for", carried, assigned), _load(function), _load(ends)]
        args.append(_tuple(carried))
        if flag:
            call = _runtime("for_range_until", *args, ast.Constant(len(carried) - 1))
        else:
            call = _runtime("for_range", *args)
        parts.append(_assign(_tuple(carried, ast.Store), call))
        if is_used and not flag:
            last = _runtime("last", ast.Starred(_load(ends), ast.Load()))
            parts.append(_assign(ast.Name(target, ast.Store()), last))
        return parts

    def _while(self, node: ast.While) -> list[ast.stmt]:
        assigned = _Assigned(node.body)
        reason = self._loop_obstacle(node)
        if any(isinstance(inner, ast.NamedExpr) for inner in _walk([node.test])):
            reason = "its condition assigns a variable"
        names = self._carried(node, assigned)
        # what the condition reads is needed even if it stands nowhere else
        names += [
            name
            for name in _occurrences([node.test])
            if name in assigned.bound and name not in names
        ]
        test = self._expressions(node.test)
        if not reason and not names:
            reason = "it assigns no variable that is used elsewhere"
        if reason:
            site = self.site(node, "while", (), assigned)
            node.test = _runtime("decided", site, ast.Constant(reason), test)
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
            return [node]
        body, flag = self._with_flags(node)
        parts: list[ast.stmt] = []
        if flag:
            parts.append(_assign(ast.Name(flag, ast.Store()), ast.Constant(False)))
            names.append(flag)
            test = _runtime("both", _runtime("negated", _load(flag)), _thunk(test))
        condition, function = self.name("test"), self.name("while")
        parts += self._defined([name for name in names if name != flag])
        parts.append(_function(condition, names, [ast.Return(test)]))
        parts.append(_function(function, names, [*body, ast.Return(_tuple(names))]))
        args = [self.site(node, "while", names, assigned), _load(condition), _load(function)]
        call = _runtime("while_loop", *args, _tuple(names))
        return [*parts, _assign(_tuple(names, ast.Store), call)]

    def _loop_obstacle(self, node: ast.For | ast.While) -> str:
        if node.orelse:
            return "it has an `else`"
        for jump in _own_jumps(node.body):
            if not _is_in_branches_only(jump, node.body):
                return (
                    f"its break or continue is in a `with`, `try` or `match` (line {jump.lineno})"
                )
        return _obstacle(node.body, self.foreign)

    def _with_flags(self, node: ast.For | ast.While) -> tuple[list[ast.stmt], str]:
        """The converted body of a loop, without `break` and `continue`; and the flag that the
        loop is left by, empty if it is not."""
        jumps = _own_jumps(node.body)
        if not jumps:
            return self.block(node.body), ""
        left = self.name("break") if any(isinstance(j, ast.Break) for j in jumps) else ""
        skipped = self.name("continue")
        body = self._flagged(list(node.body), left, skipped)
        first = ast.copy_location(
            _assign(ast.Name(skipped, ast.Store()), ast.Constant(False)), node
        )
        whole: list[ast.stmt] = [ast.fix_missing_locations(first), *body]
        for name, count in _occurrences(whole).items():
            if name in (left, skipped):
                self.uses[name] = self.uses.get(name, 0) + count + 1
        return self.block(whole), left

    def _flagged(self, block: list[ast.stmt], left: str, skipped: str) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        for position, statement in enumerate(block):
            if isinstance(statement, (ast.Break, ast.Continue)):
                flags = [skipped, left] if isinstance(statement, ast.Break) else [skipped]
                for flag in flags:
                    made = _assign(ast.Name(flag, ast.Store()), ast.Constant(True))
                    result.append(ast.fix_missing_locations(ast.copy_location(made, statement)))
                return result
            jumps = _own_jumps([statement]) if isinstance(statement, ast.If) else []
            result.append(statement)
            if jumps:
                assert isinstance(statement, ast.If)
                statement.body = self._flagged(statement.body, left, skipped)
                statement.orelse = self._flagged(statement.orelse, left, skipped)
                rest = self._flagged(block[position + 1 :], left, skipped)
                if rest:
                    test = ast.UnaryOp(ast.Not(), _load(skipped))
                    guarded = ast.copy_location(ast.If(test, rest, []), rest[0])
                    result.append(ast.fix_missing_locations(guarded))
                return result
        return result


def _is_in_branches_only(jump: ast.stmt, block: Sequence[ast.stmt]) -> bool:
    """Whether a jump stands in the block or in branches of it, and in nothing else."""
    return any(
        statement is jump
        or (
            isinstance(statement, ast.If)
            and (
                _is_in_branches_only(jump, statement.body)
                or _is_in_branches_only(jump, statement.orelse)
            )
        )
        for statement in block
    )


def _without_last_return(node: ast.If) -> list[ast.stmt]:
    """The statements of branches that end in a return, without these."""
    found: list[ast.stmt] = []
    for block in (node.body, node.orelse):
        *before, last = block
        found += before
        found += _without_last_return(last) if isinstance(last, ast.If) else []
    return found


def _occurrences(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """How often names stand in code, functions inside of it included."""
    found: dict[str, int] = {}
    for node in nodes:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                found[inner.id] = found.get(inner.id, 0) + 1
    return found


def _is_range(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and not node.keywords
        and 1 <= len(node.args) <= 3
        and not any(isinstance(arg, ast.Starred) for arg in node.args)
    )


class _Expressions(ast.NodeTransformer):
    """Conditions inside of expressions."""

    def __init__(self, converter: _Converter) -> None:
        self.converter = converter

    def _plain(self, node: ast.expr) -> bool:
        """Whether a part of an expression cannot be put into a function of its own."""
        kinds = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
        return any(isinstance(inner, kinds) for inner in ast.walk(node))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        if self._plain(node):
            return node
        function = "both" if isinstance(node.op, ast.And) else "either"
        value = node.values[-1]
        for before in reversed(node.values[:-1]):
            value = ast.copy_location(_runtime(function, before, _thunk(value)), before)
        return value

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return _runtime("negated", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) == 1 or self._plain(node):
            return node
        middle = node.comparators[:-1]
        if not all(isinstance(value, (ast.Name, ast.Constant)) for value in middle):
            return node  # would be computed twice
        operands = [node.left, *node.comparators]
        parts: list[ast.expr] = [
            ast.Compare(operands[i], [operator], [operands[i + 1]])
            for i, operator in enumerate(node.ops)
        ]
        value = parts[-1]
        for before in reversed(parts[:-1]):
            value = _runtime("both", before, _thunk(value))
        return value

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        site = self.converter.site(node, "if", (), _Assigned([]))
        self.generic_visit(node)
        if self._plain(node):
            return node
        return _runtime("chosen", site, node.test, _thunk(node.body), _thunk(node.orelse))

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        return node

    def _comprehension(self, node: Any) -> Any:
        """A comprehension has a scope of its own in some versions of Python."""
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


__all__ = ["with_native_loops"]
