"""From the text of a kernel to LLVM IR, through Numba's types and lowering.

Numba's own CPU target is not used. It would load the whole of `numba.np` at the first compile,
wrap every kernel for Python, link it with a runtime, and optimise and verify each layer by itself.
A kernel needs integers, floats, booleans, loops and the intrinsics, and nothing at run time, so
the contexts here install just that, and the result is one C function
`void symbol(int64 *table, int64 lo, int64 hi)` that refers to no Python symbol.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

from llvmlite import ir as llvmir
from llvmlite.ir import values
from numba.core import (
    bytecode,
    callconv,
    cgutils,
    compiler,
    ir,
    lowering,
    types,
    typing,
)
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.base import BaseContext
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import LoweringError, NumbaError
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.ssa import reconstruct_ssa
from numba.core.targetconfig import ConfigStack
from numba.core.typed_passes import PreLowerStripPhis
from numba.core.typing import builtins as numba_typing
from numba.core.typing.templates import Registry as TypingRegistry
from numba.core.typing.templates import builtin_registry
from numba.cpython import builtins, numbers  # noqa: F401  (they register operators)

from graphdl.kernels.cpu import intrinsics, reading
from graphdl.kernels.cpu.host import masks_are_cheap
from graphdl.kernels.cpu.inference import infer
from graphdl.kernels.cpu.scalar_code import StraightModule
from graphdl.kernels.cpu.scalars import DEFINITIONS
from graphdl.kernels.cpu.transposition import TRANSPOSITIONS
from graphdl.kernels.source import KernelError
from graphdl.kernels.user import called_in

#: What LLVM may do with float operators of the text: use fused multiply-adds, multiply by a
#: reciprocal, ignore the sign of zero. NaN, infinity and division by 0 keep their meaning: nnan and
#: ninf are never set. Reordering is allowed besides in accumulations, see `_accumulated`; anywhere
#: else it would undo what `(x + big) - big` is written for, and round an element differently in
#: the vector loop and in the scalar loop that does the rest.
RELAXED = ("arcp", "contract", "nsz")

_FLOAT_OPERATORS = frozenset({"fadd", "fsub", "fmul", "fdiv", "frem"})

_ARGUMENTS = (intrinsics.TABLE, types.int64, types.int64)


class _Typing(typing.BaseContext):  # type: ignore[misc]
    def refresh(self) -> None:
        """Nothing: all that kernels need is installed once, at the start."""

    def init(self) -> None:
        """Install the operators on numbers, and no more of Numba's typing.

        Its registry also holds templates of arrays, lists, dates ..., some of which load the whole
        CPU target when they are made.
        """
        for template in filter(_is_of_numbers, builtin_registry.functions):
            self.insert_function(template(self))
        for template in filter(_is_of_numbers, builtin_registry.attributes):
            self.insert_attributes(template(self))
        # Numba refuses a text in which `range` is any object but the built-in one.
        self.insert_global(range, intrinsics.RANGE._numba_type_)
        operators = TypingRegistry()
        operators.globals = [
            (value, kind)
            for value, kind in builtin_registry.globals
            if value is not range and all(map(_is_of_numbers, getattr(kind, "templates", [object])))
        ]
        self.install_registry(operators)
        self.install_registry(intrinsics.typing_registry)
        self._signatures: dict[tuple[Any, ...], Any] = {}

    def signature(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """What a call means: of an intrinsic, or of an operator, which Numba knows by its own name.

        Numba tries the rules of an operator one by one; here each is asked once in a process.
        """
        if isinstance(function, intrinsics.IntrinsicType):
            return function.get_call_type(self, arguments, {})
        key = function, *map(types.unliteral, arguments)
        if key not in self._signatures:
            known = function if isinstance(function, str) else self.resolve_value_type(function)
            self._signatures[key] = self.resolve_function_type(known, key[1:], {})
        return self._signatures[key]


def _is_of_numbers(template: type) -> bool:
    # A template that was registered for a global is a subclass, made elsewhere, of the one written.
    return any(base.__module__ == numba_typing.__name__ for base in template.__mro__[:2])


class _Target(BaseContext):  # type: ignore[misc]
    def load_additional_registries(self) -> None:
        self.install_registry(intrinsics.lowering_registry)

    def codegen(self) -> None:
        return None

    @property
    def call_conv(self) -> Any:
        return _PlainC(self)

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        """What emits the code of a call, found once for each signature of an operator."""
        if isinstance(fn, intrinsics.IntrinsicType):
            emit = fn.implementation(sig)
            return lambda builder, args, loc=None: emit(self, builder, sig, args)
        key = fn, sig.return_type, sig.args
        if key not in self._found:
            self._found[key] = super().get_function(fn, sig, _firstcall)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[Any, Any]:
        return {}

    def add_linking_libs(self, libs: Any) -> None:
        if libs:
            raise NotImplementedError("a kernel cannot call functions that Numba compiles itself")


class _PlainC(callconv.BaseCallConv):  # type: ignore[misc]
    """A C function that returns nothing and reports no errors."""

    def _make_call_helper(self, builder: Any) -> None:
        return None

    def get_function_type(self, restype: Any, argtypes: Any) -> Any:
        arguments = self._get_arg_packer(argtypes).argument_types
        return llvmir.FunctionType(llvmir.VoidType(), list(arguments))

    def decorate_function(
        self, fn: Any, args: Any, fe_argtypes: Any, noalias: bool = False
    ) -> None:
        self._get_arg_packer(fe_argtypes).assign_names(fn.args, args)
        fn.attributes.add("nounwind")

    def get_arguments(self, func: Any) -> Any:
        return func.args

    def return_value(self, builder: Any, retval: Any) -> None:
        builder.ret_void()

    def return_user_exc(self, builder: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a kernel cannot raise an exception")


class _Distinct(values.MDValue):  # type: ignore[misc]
    """A metadata node that equals no other, not even one with the same operands."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, (), name=str(len(module.metadata)))

    def descr(self, buf: list[str]) -> None:
        operands = ", ".join(operand.get_reference() for operand in self.operands)
        buf += (f"distinct !{{ {operands} }}", "\n")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _accumulated(blocks: Mapping[int, Any]) -> set[int]:
    """The identities of the assignments that are a step of an accumulation: `s = s + x`, `s *= x`,
    `s = add(s, x)`.

    Only these steps may be reordered, which is what lets a sum be done in vectors.
    """
    assigns = [assign for block in blocks.values() for assign in block.find_insts(ir.Assign)]
    name_of = {a.target.name: a.target.unversioned_name for a in assigns}
    for assign in assigns:  # the text's variable is assigned from a temporary
        if isinstance(assign.value, ir.Var):
            name_of[assign.value.name] = assign.target.unversioned_name
    return {
        id(assign)
        for assign in assigns
        if isinstance(assign.value, ir.Expr)
        and assign.value.op in ("binop", "inplace_binop", "call")
        and name_of[assign.target.name]
        in [operand.unversioned_name for operand in assign.value.list_vars()]
    }


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Lowering that tells LLVM what `lanes` loops promise.

    Each such loop gets an access group of its own, every access in it names the group, and its back
    edge says that accesses of the group are parallel
    (https://llvm.org/docs/LangRef.html#llvm-loop-parallel-accesses-metadata). Only the loop that
    made the promise is marked: a `range` loop in it or around it keeps the order of its accesses.
    """

    def init(self) -> None:
        super().init()
        blocks = self.func_ir.blocks
        self._turns: dict[str, tuple[Any, intrinsics.Turns]] = {}
        self._groups: dict[int, list[Any]] = {}  # block -> access groups of the loops around it
        self._latches: dict[int, Any] = {}  # block that jumps back -> identity of its loop
        self._labels = {id(block): label for label, block in blocks.items()}
        self._accumulated = _accumulated(blocks)
        graph = compute_cfg_from_blocks(blocks)
        for loop in graph.loops().values():
            own = [blocks[label] for label in loop.body if graph.in_loops(label)[0] is loop]
            kinds = [self.typeof(e.value.name) for b in own for e in b.find_exprs(reading.MORE)]
            for kind in kinds:
                if isinstance(kind, intrinsics.Loop) and kind.parallel:
                    self._mark(loop, kind)

    def _mark(self, loop: Any, kind: intrinsics.Loop) -> None:
        add = self.module.add_metadata
        group, identity = _Distinct(self.module), _Distinct(self.module)
        hints = [add(["llvm.loop.parallel_accesses", group])]
        if kind.few:
            # Measured on rows of 10 elements of a softmax: 24 ns a row, 60 ns with neither hint.
            hints.append(add(["llvm.loop.unroll.disable"]))
            if masks_are_cheap():
                one = llvmir.Constant(llvmir.IntType(1), 1)
                hints.append(add(["llvm.loop.vectorize.predicate.enable", one]))
        identity.operands = (identity, *hints)
        for label in loop.body:
            self._groups.setdefault(label, []).append(group)
            if loop.header in self.func_ir.blocks[label].terminator.get_targets():
                self._latches[label] = identity

    def emit_environment_object(self) -> None:
        """Nothing: the environment holds Python objects, and a kernel refers to none."""

    def lower_block(self, block: Any) -> None:
        label = self._labels[id(block)]
        groups = self._groups.get(label, [])
        many = len(groups) > 1
        self.builder.lanes_groups = (
            None if not groups else self.module.add_metadata(groups) if many else groups[0]
        )
        try:
            for inst in block.body:
                self.loc = inst.loc
                self.lower_inst(inst)
        except Exception as error:
            raise LoweringError(f'{error} in "{inst}"', self.loc) from error
        if label in self._latches:
            self.builder.block.terminator.set_metadata("llvm.loop", self._latches[label])

    def lower_inst(self, inst: Any) -> None:
        """What Numba does, without a description of each instruction for its debugger."""
        if isinstance(inst, ir.Assign):
            if isinstance(inst.value, ir.Expr) and inst.value.op == reading.LOOP:
                self._start_loop(inst.target.name, self.loadvar(inst.value.value.name))
                return
            value = self.lower_assign(self.typeof(inst.target.name), inst)
            self.storevar(value, inst.target.name)
        elif isinstance(inst, ir.SetItem):
            self._element(
                intrinsics.store, self.fndesc.calltypes[inst], inst.target, inst.index, inst.value
            )
        else:
            super().lower_inst(inst)

    def _start_loop(self, name: str, turns: intrinsics.Turns) -> None:
        """Keep the index of the next turn in memory of its own, which LLVM makes a register."""
        index = cgutils.alloca_once(self.builder, turns.start.type)
        self.builder.store(turns.start, index)
        self._turns[name] = index, turns

    def lower_expr(self, resty: Any, expr: Any) -> Any:
        if expr.op not in (reading.MORE, reading.NEXT):
            return super().lower_expr(resty, expr)
        index, turns = self._turns[expr.value.name]
        now = self.builder.load(index)
        if expr.op == reading.MORE:
            return self.builder.icmp_signed(turns.comparison, now, turns.end)
        self.builder.store(self.builder.add(now, turns.step, flags=["nsw"]), index)
        return now

    def lower_getitem(self, resty: Any, expr: Any, value: Any, index: Any, signature: Any) -> Any:
        loaded = self._element(intrinsics.load, signature, value, index)
        return self.context.cast(self.builder, loaded, signature.return_type, resty)

    def _element(self, emit: Callable[..., Any], signature: Any, *operands: Any) -> Any:
        """A load or a store: only pointers have elements."""
        pairs = zip(operands, signature.args, strict=True)
        values = [self._cast_var(operand, kind) for operand, kind in pairs]
        return emit(self.context, self.builder, signature, values)

    def _find_singly_assigned_variable(self) -> None:
        """The variables that are assigned once and used in that block alone need no memory."""
        homes: dict[str, int] = {}
        elsewhere: set[str] = set()
        for label, block in self.func_ir.blocks.items():
            for inst in block.body:
                target = inst.target.name if isinstance(inst, ir.Assign) else None
                used = inst.value if target else inst
                for name in reading.used_in(used):
                    if homes.get(name) != label:
                        elsewhere.add(name)
                if target in homes:
                    elsewhere.add(target)
                elif target:
                    homes[target] = label
        self._singly_assigned_vars = homes.keys() - elsewhere
        self._blk_local_varmap: dict[str, Any] = {}

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        """Lower an operator of the text, leaving LLVM the freedom that RELAXED describes.

        What intrinsics emit is left alone: compensated arithmetic in them must stay as written.
        """
        block = self.builder.block
        start = len(block.instructions)
        result = super().lower_binop(resty, expr, op)
        for instruction in block.instructions[start:]:
            if instruction.opname in _FLOAT_OPERATORS:
                instruction.flags.extend(RELAXED)
        return result

    def lower_assign(self, ty: Any, inst: Any) -> Any:
        self._is_step = id(inst) in self._accumulated
        value = super().lower_assign(ty, inst)
        if self._is_step and self._may_reorder(inst.value):
            opname = getattr(value, "opname", None)
            if opname in _FLOAT_OPERATORS and "reassoc" not in value.flags:
                value.flags.append("reassoc")
        return value

    def _may_reorder(self, expr: Any) -> bool:
        """Whether a step is a plain operator, and not the last operation of some longer formula."""
        if expr.op != "call":
            return True
        function = self.typeof(expr.func.name)
        return getattr(function, "name_in_text", "") in ("add", "subtract", "multiply")

    def lower_call(self, resty: Any, expr: Any) -> Any:
        """Every function that a kernel calls is an intrinsic."""
        function, signature = self.typeof(expr.func.name), self.fndesc.calltypes[expr]
        emit, kinds = function.implementation(signature), signature.args
        if self._is_step and isinstance(signature.return_type, types.Float):
            step = intrinsics.FLOAT_STEPS.get(function.name_in_text)
            if step is not None:
                emit, kinds = step, [signature.return_type] * len(kinds)
        args = [self._cast_var(x, kind) for x, kind in zip(expr.args, kinds, strict=True)]
        value = emit(self.context, self.builder, signature, args)
        return self.context.cast(self.builder, value, signature.return_type, resty)

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        return cgutils.alloca_once(self.builder, lltype, name=name)

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))


class _Library:
    """What Numba's lowering expects of a code library."""

    def __init__(self, is_straight: bool) -> None:
        self.module = StraightModule() if is_straight else llvmir.Module()

    def create_ir_module(self, name: str) -> Any:
        return self.module

    def add_ir_module(self, module: Any) -> None:
        """Nothing: the module is there already, and LLVM gets it as text."""


@cache
def _contexts() -> tuple[_Typing, _Target]:
    typing_context = _Typing()
    target = _Target(typing_context, "cpu")
    target.refresh()
    return typing_context, target.subtarget(
        error_model=callconv.create_error_model("numpy", target)
    )


@cache
def compiled_names() -> Mapping[str, Any]:
    """Every name that the text of a kernel may use, bound to what the compiler makes of it."""
    return {
        **intrinsics.MEMORY_AND_LOOPS,
        **TRANSPOSITIONS,
        **{name: intrinsics.Intrinsic(define) for name, define in DEFINITIONS.items()},
    }


def _read(text: str, filename: str) -> ir.FunctionIR:
    """The function `kernel` that the text defines, over the names that the compiler knows."""
    known = {**compiled_names(), **_users(text)}
    tree = ast.parse(text, filename)
    namespace: dict[str, Any] = {"__name__": intrinsics.__name__}
    exec(compile(tree, filename, "exec"), namespace)
    identity = bytecode.FunctionIdentity.from_function(namespace["kernel"])
    definition = next(x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == "kernel")
    return reading.function_ir(identity, definition, known)


def _users(text: str) -> Mapping[str, Any]:
    """The user's own functions that the text calls."""
    return _user_code().intrinsics_of(text) if called_in(text) else {}


def _user_code() -> Any:
    # Imported here because it loads the whole of Numba's CPU target, as only such functions need.
    from graphdl.kernels.cpu import user_code

    return user_code


def llvm_ir(text: str, symbol: str, filename: str) -> str:
    """The LLVM IR, not optimised, of the kernel that `text` defines, as the C function `symbol`.

    `filename` is where a person finds the text; it appears in error messages. Raises KernelError,
    naming the line, if the text is no kernel: wrong types, unknown names, exceptions, containers.
    """
    try:
        text_of_module: str = _lowered(text, symbol, filename)
        if called_in(text):
            text_of_module = _user_code().linked(text_of_module, text, symbol)
        return text_of_module
    except (NumbaError, NotImplementedError, SyntaxError, KeyError) as error:
        raise KernelError(f"cannot compile the kernel in {filename}: {error}") from error


@global_compiler_lock  # type: ignore[untyped-decorator]
def _lowered(text: str, symbol: str, filename: str) -> str:
    typing_context, target_context = _contexts()

    function = _read(text, filename)
    inferred = infer(typing_context, function, _ARGUMENTS)
    if not inferred.is_uniform:
        function = reconstruct_ssa(function)
        inferred = infer(typing_context, function, _ARGUMENTS)
        function = PreLowerStripPhis()._strip_phi_nodes(function)

    library = _Library(is_straight=len(function.blocks) == 1)
    descriptor = PythonFunctionDescriptor.from_specialized_function(
        function,
        inferred.typemap,
        types.none,
        inferred.calltypes,
        mangler=lambda *args, **kwargs: symbol,
        inline=False,
        noalias=False,
        abi_tags=(),
    )
    with ConfigStack().enter(compiler.Flags()):
        _Lower(target_context, library, descriptor, function, metadata={}).lower()
    return str(library.module)
