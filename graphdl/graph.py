"""The graph: immutable, interned, typed nodes, and the program that they make."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from weakref import WeakValueDictionary

import numpy as np
import optree
from msgspec import Struct, field

from graphdl.errors import GraphError, ShapeError, UnsupportedError
from graphdl.trees import flatten, unflatten
from graphdl.types import TensorType, as_dtype, is_half

if TYPE_CHECKING:
    import networkx

Attributes = tuple[tuple[str, Any], ...]


class Scope(Struct, frozen=True, eq=False):
    """One run through a `with gd.scope(name):` block; another run is another Scope."""

    name: str


class Source(Struct, frozen=True, eq=False):
    """A line of the user's code, and what a node is made for there.

    `scopes` are the blocks of `gd.scope` around the line, the outermost first. A node of a backward
    pass has the line of the node whose gradient rule made it: `pulled` is that node's source, and
    `gradient_of` the node that it is the gradient of, as that was when it was differentiated, where
    it is one. Two sources of one line are equal.
    """

    file: str
    line: int
    function: str
    scopes: tuple[Scope, ...] = ()
    pulled: Source | None = None
    gradient_of: Node | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.line, self.file, self.function) == (
            other.line, other.file, other.function
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.file, self.line, self.function))

    def __repr__(self) -> str:
        return f"Source({self.file!r}, {self.line}, {self.function!r})"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Op(Protocol):
    """What a node knows of its operation; the records are in graphdl.ops."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def infer(self) -> Callable[..., TensorType]: ...
    @property
    def evaluate(self) -> Callable[..., Any]: ...
    @property
    def vjp(self) -> Callable[..., Sequence[Any]] | None: ...
    @property
    def no_gradient(self) -> str: ...
    @property
    def symbol(self) -> str: ...
    @property
    def undifferentiated(self) -> Mapping[int, str]: ...
    @property
    def results(self) -> Callable[..., Sequence[TensorType]] | None: ...
    @property
    def failure(self) -> str: ...
    def __call__(self, *args: Any, **attrs: Any) -> Any: ...


class Node:
    """One operation on earlier nodes; equal nodes are the same object.

    `attrs` are the static attributes as sorted pairs. A node has one result, of type `type`.
    """

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "type")

    op: Op
    inputs: tuple[Node, ...]
    attrs: Attributes
    type: TensorType

    def __init__(self) -> None:
        raise TypeError("nodes are made by intern()")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Node is immutable; cannot set {name!r}")

    def __deepcopy__(self, memo: object) -> Node:
        return self  # equal nodes are the same object

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(
            "a graph refers to functions, which cannot be pickled. Write executable.save(path) and "
            "gd.load(path); a function compiled by gd.compile can be pickled where it is a name of "
            "its module"
        )

    def __getitem__(self, name: str) -> Any:
        """The attribute called `name`."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(name)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    def __repr__(self) -> str:
        attributes = "".join(f", {key}={value}" for key, value in self.attrs)
        operands = ", ".join(str(operand.type) for operand in self.inputs)
        return f"{self.op.name}({operands}{attributes}) -> {self.type}"


_nodes: WeakValueDictionary[Any, Node] = WeakValueDictionary()
_lock = threading.RLock()


def intern(op: Op, inputs: tuple[Node, ...], attrs: Attributes, type: TensorType) -> Node:
    """The one node of this operation on these inputs."""
    key = (op, inputs, attrs, type.dtype, type.shape)
    with _lock:
        node = _nodes.get(key)
        if node is None:
            node = object.__new__(Node)
            for name, value in (("op", op), ("inputs", inputs), ("attrs", attrs), ("type", type)):
                object.__setattr__(node, name, value)
            _nodes[key] = node
    return node


class Literal:
    """A read-only array as an attribute: compared by dtype, shape and bytes.

    So -0.0 differs from 0.0, and a NaN equals itself.
    """

    __slots__ = ("_key", "array")

    def __init__(self, array: Any) -> None:
        # asarray and copy, not ascontiguousarray, which would make a 0-d array one-dimensional
        values = np.asarray(array)
        values = np.array(values, as_dtype(values.dtype), order="C", copy=True)
        values.flags.writeable = False
        self.array = values
        content = values.tobytes()
        digest = content if len(content) <= 32 else hashlib.blake2b(content).digest()
        self._key = (values.dtype.str, values.shape, digest)

    @property
    def key(self) -> tuple[str, tuple[int, ...], bytes]:
        """The dtype, the shape, and the bytes or, of many, their digest: what is compared."""
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        if self.array.ndim == 0:
            return repr(self.array.item())
        if self.array.size <= 6:
            return str(self.array.tolist())
        return f"<{TensorType(self.array.dtype, self.array.shape)}>"


def topological(outputs: Iterable[Node]) -> list[Node]:
    """All nodes that `outputs` reach, inputs before users; without recursion."""
    order: list[Node] = []
    seen: set[Node] = set()
    for output in outputs:
        stack: list[tuple[Node, Iterator[Node]]] = []
        if output not in seen:
            seen.add(output)
            stack.append((output, iter(output.inputs)))
        while stack:
            node, pending = stack[-1]
            for operand in pending:
                if operand not in seen:
                    seen.add(operand)
                    stack.append((operand, iter(operand.inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """The users of each node, each user once, in order."""
    result: dict[Node, list[Node]] = {}
    for node in nodes:
        result.setdefault(node, [])
        for operand in dict.fromkeys(node.inputs):
            result.setdefault(operand, []).append(node)
    return result


#: Nodes to draw together, or their labels, by the name of their group.
Groups = Mapping[str, Iterable["Node | str"]]
#: The functions behind `Graph.visualize` ("save"), `_repr_svg_` ("svg") and `_repr_html_` ("html").
#: graphdl.visualize puts them here, which stands above this module and reads it.
PICTURES: dict[str, Callable[..., Any]] = {}


class Graph(Struct, frozen=True, eq=False, dict=True, weakref=True):
    """A static program: typed inputs, nodes in order, outputs.

    `in_tree` and `out_tree` say how the arguments and the results of the traced function nest;
    `sources` holds the user's line of each node; `names` the inputs' names.

    >>> import numpy as np, graphdl as gd
    >>> graph = gd.trace(lambda x: np.tanh(x) + 1, gd.spec((2, 3)))
    >>> [node.op.name for node in graph.operations]
    ['tanh', 'constant', 'broadcast', 'add']
    >>> graph.outputs[0].type
    TensorType(dtype=dtype('float64'), shape=(2, 3))
    >>> graph.evaluate(np.zeros((2, 3)))
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    names: tuple[str, ...] = ()
    sources: Mapping[Node, Source] = field(default_factory=dict)
    in_tree: optree.PyTreeSpec | None = None
    out_tree: optree.PyTreeSpec | None = None

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node: the inputs first, then the others, each after what it needs."""
        return tuple(dict.fromkeys((*self.inputs, *topological(self.outputs))))

    @cached_property
    def operations(self) -> tuple[Node, ...]:
        """The nodes that are not inputs."""
        arguments = set(self.inputs)
        return tuple(node for node in self.nodes if node not in arguments)

    def __deepcopy__(self, memo: object) -> Graph:
        return self  # nothing in it changes

    def __repr__(self) -> str:
        return f"<graph of {len(self.nodes)} nodes>"

    def label(self, index: int) -> str:
        """The name of input number `index`."""
        return self.names[index] if index < len(self.names) else f"arg{index}"

    @cached_property
    def labels(self) -> Mapping[Node, str]:
        """A short name for each node, as `str(graph)` prints it."""
        result = {node: self.label(i) for i, node in enumerate(self.inputs)}
        count = itertools.count()
        for node in self.operations:
            result[node] = f"%{next(count)}"
        return result

    def __str__(self) -> str:
        labels = self.labels
        arguments = ", ".join(f"{labels[node]}: {node.type}" for node in self.inputs)
        lines = [f"graph({arguments}):"]
        for node in self.operations:
            operands = [labels[operand] for operand in node.inputs]
            operands += [f"{key}={value}" for key, value in node.attrs]
            text = f"  {labels[node]}: {node.type} = {node.op.name}({', '.join(operands)})"
            if node in self.sources:
                text = f"{text:<60}  # {self.sources[node]}"
            lines.append(text)
        lines.append(f"  return {', '.join(labels[node] for node in self.outputs)}")
        return "\n".join(lines)

    def evaluate(self, *args: Any) -> Any:
        """Run the graph in plain NumPy, node by node: the reference of every compiled program.

        `args` nest as the arguments of the traced function; the result as its result.
        """
        leaves = self._leaves(args)
        values: dict[Node, np.ndarray[Any, Any]] = {}
        for i, (node, leaf) in enumerate(zip(self.inputs, leaves, strict=True)):
            values[node] = self._argument(i, node, leaf)
        last_use: dict[Node, Node] = {}
        for node in self.operations:
            for operand in node.inputs:
                last_use[operand] = node
        kept = set(self.outputs)
        for node in self.operations:
            operands = [values[operand] for operand in node.inputs]
            with np.errstate(all="ignore"):
                result = reference(node, operands)
            if result.dtype != node.dtype or result.shape != node.shape:
                raise GraphError(
                    f"the reference of {node.op.name} returned "
                    f"{TensorType(result.dtype, result.shape)} instead of {node.type}"
                )
            values[node] = result
            for operand in set(node.inputs):
                if last_use[operand] is node and operand not in kept:
                    del values[operand]
        results = [np.array(values[node]) for node in self.outputs]
        if self.out_tree is None:
            return results[0] if len(results) == 1 else tuple(results)
        return unflatten(self.out_tree, results)

    def _leaves(self, args: Sequence[Any]) -> list[Any]:
        if self.in_tree is None:
            leaves = list(args)
        else:
            leaves, tree = flatten(tuple(args))
            if tree != self.in_tree:
                raise ShapeError(f"arguments nest as {tree}; this graph takes {self.in_tree}")
        if len(leaves) != len(self.inputs):
            raise ShapeError(f"got {len(leaves)} arrays; this graph takes {len(self.inputs)}")
        return leaves

    def _argument(self, index: int, node: Node, leaf: Any) -> np.ndarray[Any, Any]:
        array = np.asarray(leaf)
        if array.shape != node.shape:
            raise ShapeError(
                f"argument {self.label(index)} has shape {array.shape}; "
                f"this graph takes {node.type}"
            )
        if not isinstance(leaf, (bool, int, float, complex)) and array.dtype != node.dtype:
            raise ShapeError(
                f"argument {self.label(index)} is {array.dtype}; this graph takes {node.type}"
            )
        return array.astype(node.dtype, copy=False)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The graph for networkx: nodes 0, 1, ... in order, edges with the operand's `position`.

        Node attributes: `op`, `name`, `dtype`, `shape`, `attrs`, `source`, `input`, `output`.
        """
        import networkx  # 0.25 s of start-up that only those who ask for it pay

        result = networkx.MultiDiGraph()
        number = {node: i for i, node in enumerate(self.nodes)}
        arguments, results = set(self.inputs), set(self.outputs)
        for node, i in number.items():
            result.add_node(
                i,
                op=node.op.name,
                name=self.labels[node],
                dtype=str(node.dtype),
                shape=node.shape,
                attrs=dict(node.attrs),
                source=self.sources.get(node),
                input=node in arguments,
                output=node in results,
            )
            for position, operand in enumerate(node.inputs):
                result.add_edge(number[operand], i, position=position)
        return result

    def visualize(
        self,
        path: str | Path,
        groups: Groups | None = None,
        *,
        layout: str = "auto",
        level: str = "op",
        color: str = "phase",
        theme: str = "light",
        profile: Any = None,
        values: Sequence[Any] | None = None,
        compare: Any = None,
        **unknown: Any,
    ) -> Path:
        """Draw the graph into a file, without running anything.

        Args:
            path: the file; its ending says in which format: `.svg`, `.pdf`, `.png`, `.html` (a page
                to look around in), `.json` (the facts of that page), `.dot` (Graphviz), `.mmd`
                (Mermaid), `.graphml`.
            groups: nodes (or their labels, as `str(graph)` prints them) to draw in one box, by the
                name of their group. `Executable.visualize` shows what runs as one kernel.
            layout: "training" puts the backward pass beside the forward pass, so that each gradient
                stands beside what it is the gradient of, and the update beside that; "dag" goes
                from the top down; "auto" is "training" where there is a backward pass. "dot" asks
                Graphviz's program of that name, where it is installed.
            level: what a box is: "op", "kernel" or "scope" (a layer, or a `gd.scope`).
            color: "phase", or by a measure: "time", "bytes", "flops", "intensity".
            theme: "light" or "dark".
            profile: measured times, of `Executable.profile`; or seconds by the name of a kernel.
            values: arguments, for a picture of a small graph as in textbooks: the value at each
                node, and where the result is one number, its derivative by each, and on each edge
                the factor of the chain rule.
            compare: another graph or executable: the page, an `.html`, opens with both side by
                side, and marks what only one of them has.

        Returns:
            The path.

        Raises:
            ArgumentError: another ending, or an option that does not apply; it lists those that do.
            OSError: the file cannot be written.

        >>> import graphdl as gd, tempfile
        >>> graph = gd.trace(lambda x: x * x, gd.spec((3,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(graph.visualize(folder + "/square.svg").name)
        square.svg
        """
        options: dict[str, Any] = {"layout": layout, "level": level, "color": color, "theme": theme}
        options |= {"profile": profile, "values": values, "compare": compare}
        made: Path = PICTURES["save"](self, path, groups, **options, **unknown)
        return made

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        text: str = PICTURES["svg"](self)
        return text

    def _repr_html_(self) -> str:
        """What a notebook shows where it can show pages: the same, with scroll bars."""
        text: str = PICTURES["html"](self)
        return text

    def with_outputs(
        self, outputs: Sequence[Node], sources: Mapping[Node, Source] | None = None
    ) -> Graph:
        """The same inputs and nesting, other output nodes."""
        return Graph(
            self.inputs,
            tuple(outputs),
            self.names,
            self.sources if sources is None else sources,
            self.in_tree,
            self.out_tree,
        )


def reference(node: Node, operands: Sequence[Any]) -> np.ndarray[Any, Any]:
    """What an operation gives by NumPy; on floats of 16 bits by way of float32, rounded once.

    So do NumPy's float16 and ml_dtypes' bfloat16 for a single element, but not for sums.
    """
    halves = any(is_half(x.dtype) for x in operands)
    if halves and node.op.family not in ("control", "custom") and "dtype" not in dict(node.attrs):
        wide = [x.astype(np.float32) if is_half(x.dtype) else x for x in operands]
        result = np.asarray(node.op.evaluate(*wide, **dict(node.attrs)))
        return result.astype(node.dtype) if is_half(node.dtype) else result
    return np.asarray(node.op.evaluate(*operands, **dict(node.attrs)))


def rebuild(graph: Graph, replace: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """Walk the graph in order; `replace(node, new_inputs)` gives the node to use instead.

    New nodes inherit the user's line of the node that they replace.
    """
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    sources = dict(graph.sources)
    for node in graph.operations:
        result = replace(node, tuple(new[operand] for operand in node.inputs))
        new[node] = result
        if result is not node and node in sources:
            sources.setdefault(result, sources[node])
    return graph.with_outputs([new[node] for node in graph.outputs], sources)
