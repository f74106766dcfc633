"""recurrent: LSTM and GRU over 128 steps, forward and a training step, batch 1 and 32.

As many inputs as hidden units, 128 and 512, float32. graphdl and JAX `scan` a cell over the steps,
the inputs' products taken out of the loop; PyTorch has its own kernel, which torch.compile would
only pass on; autograd runs a Python loop. The loss is half the mean square of a state. The floor is
the matrix products alone, those in the loop a step at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report, training
from bench.cases import Array, Case, Prepared, Target
from bench.functions import VALUE, Function, Question, contestants, scaled
from bench.peers import library

RULE = training.Rule(0.1)
PARAMETERS = 4


@dataclass(frozen=True)
class Network:
    """`kind` is "LSTM" or "GRU"."""

    kind: str
    steps: int
    batch: int
    hidden: int

    @property
    def gates(self) -> int:
        return 4 if self.kind == "LSTM" else 3

    @property
    def name(self) -> str:
        return f"{self.kind}, batch {self.batch}, hidden {self.hidden}"


NETWORKS = {
    "full": tuple(
        Network(kind, 128, batch, hidden)
        for kind in ("LSTM", "GRU")
        for batch in (1, 32)
        for hidden in (128, 512)
    ),
    "tiny": (Network("LSTM", 3, 2, 4), Network("GRU", 3, 2, 4)),
}


def inputs(network: Network) -> dict[str, Array]:
    """wx and wh (gates x hidden, hidden), bx, bh; x (steps, batch, hidden). Gates as in PyTorch."""
    wide = network.gates * network.hidden
    weights, spread = (wide, network.hidden), network.hidden**-0.5
    return {
        "wx": scaled(weights, spread, seed=0),
        "wh": scaled(weights, spread, seed=1),
        "bx": scaled((wide,), 0.1, seed=2),
        "bh": scaled((wide,), 0.1, seed=3),
        "x": scaled((network.steps, network.batch, network.hidden), 1.0, seed=4),
    }


@dataclass(frozen=True)
class Names:
    """What a library calls the two functions of the gates."""

    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]


def lstm_cell(names: Names, n: int, state: Any, given: Any, recurrent: Any) -> Any:
    """The state (h, c) after a step, from what the inputs and the last h give to the gates."""
    _, c = state
    gates = given + recurrent
    i, f, o = (names.sigmoid(gates[:, k * n : (k + 1) * n]) for k in (0, 1, 3))
    c = f * c + i * names.tanh(gates[:, 2 * n : 3 * n])
    return o * names.tanh(c), c


def gru_cell(names: Names, n: int, state: Any, given: Any, recurrent: Any) -> Any:
    """The state (h,) after a step."""
    (h,) = state
    r, z = (
        names.sigmoid(given[:, part] + recurrent[:, part])
        for part in (slice(0, n), slice(n, 2 * n))
    )
    new = names.tanh(given[:, 2 * n :] + r * recurrent[:, 2 * n :])
    return ((1.0 - z) * new + z * h,)


CELLS = {"LSTM": lstm_cell, "GRU": gru_cell}


def given_by_inputs(network: Network, wx: Any, bx: Any, x: Any) -> Any:
    """x @ wx.T + bx for all steps, as one product."""
    rows = network.steps * network.batch
    shape = (network.steps, network.batch, network.gates * network.hidden)
    return (x.reshape((rows, network.hidden)) @ wx.T + bx).reshape(shape)


def zeros(network: Network, make: Callable[[tuple[int, int]], Any]) -> tuple[Any, ...]:
    """The state before the first step."""
    parts = 2 if network.kind == "LSTM" else 1
    return tuple(make((network.batch, network.hidden)) for _ in range(parts))


def scanned(network: Network, names: Names, scan: Any, make: Any, arrays: Any) -> Any:
    """The states h of all steps, by a `scan` with the signature of JAX."""
    wx, wh, bx, bh, x = arrays
    cell = CELLS[network.kind]

    def step(state: Any, given: Any) -> Any:
        state = cell(names, network.hidden, state, given, state[0] @ wh.T + bh)
        return state, state[0]

    return scan(step, zeros(network, make), given_by_inputs(network, wx, bx, x))[1]


def with_graphdl(network: Network, np: Any, *arrays: Any) -> Any:
    import graphdl as gd

    def make(shape: tuple[int, int]) -> Any:
        return np.zeros(shape, "float32")

    return scanned(network, Names(gd.nn.sigmoid, np.tanh), gd.scan, make, arrays)


def with_jax(network: Network, jax: Any, *arrays: Any) -> Any:
    names = Names(jax.nn.sigmoid, jax.numpy.tanh)
    return scanned(network, names, jax.lax.scan, jax.numpy.zeros, arrays)


def with_numpy(network: Network, np: Any, wx: Any, wh: Any, bx: Any, bh: Any, x: Any) -> Any:
    names = Names(lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), np.tanh)
    state = zeros(network, lambda shape: np.zeros(shape, x.dtype))
    given = given_by_inputs(network, wx, bx, x)
    states = []
    for t in range(network.steps):
        state = CELLS[network.kind](names, network.hidden, state, given[t], state[0] @ wh.T + bh)
        states.append(state[0])
    return np.stack(states)


def with_torch(network: Network, torch: Any, wx: Any, wh: Any, bx: Any, bh: Any, x: Any) -> Any:
    """What `torch.nn.LSTM` and `torch.nn.GRU` call."""
    start = zeros(network, lambda shape: torch.zeros((1, *shape)))
    options = (True, 1, 0.0, wx.requires_grad, False, False)
    if network.kind == "LSTM":
        return torch.lstm(x, start, [wx, wh, bx, bh], *options)[0]
    return torch.gru(x, start[0], [wx, wh, bx, bh], *options)[0]


def with_pytensor(network: Network, pt: Any, wx: Any, wh: Any, bx: Any, bh: Any, x: Any) -> Any:
    pytensor = library("pytensor")

    names = Names(pt.sigmoid, pt.tanh)
    parts = 2 if network.kind == "LSTM" else 1

    def step(given: Any, *rest: Any) -> Any:
        state, wh, bh = rest[:parts], rest[-2], rest[-1]
        found = CELLS[network.kind](names, network.hidden, state, given, state[0] @ wh.T + bh)
        return list(found)

    found = pytensor.scan(
        step,
        sequences=[given_by_inputs(network, wx, bx, x)],
        outputs_info=list(zeros(network, lambda shape: pt.zeros(shape, "float32"))),
        non_sequences=[wh, bh],
        return_updates=False,
    )
    return found[0] if isinstance(found, list | tuple) else found


def functions(network: Network, loss: bool) -> Function:
    """The states of all steps, or half the mean over steps and batch of their squares."""

    def of(definition: Any) -> Any:
        def value(module: Any, *arrays: Any) -> Any:
            h = definition(network, module, *arrays)
            return (h * h).sum() * (0.5 / (network.steps * network.batch)) if loss else h

        return value

    return Function(
        of(with_numpy), of(with_torch), of(with_pytensor), of(with_jax), of(with_graphdl),
        compiles=False,
    )  # fmt: skip


# By hand, in NumPy.


def _logistic(x: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-x))
    return found


def lstm_by_hand(
    network: Network, wx: Array, wh: Array, bx: Array, bh: Array, x: Array
) -> list[Array]:
    """The loss and its gradients by wx, wh, bx, bh, by going through the steps backwards."""
    n = network.hidden
    h = c = np.zeros((network.batch, n))
    tape, states = [], []
    for t in range(network.steps):
        gates = x[t] @ wx.T + bx + h @ wh.T + bh
        i, f, o = (_logistic(gates[:, k * n : (k + 1) * n]) for k in (0, 1, 3))
        g = np.tanh(gates[:, 2 * n : 3 * n])
        new = f * c + i * g
        tape.append((h, c, i, f, g, o, np.tanh(new)))
        h, c = o * np.tanh(new), new
        states.append(h)
    count = network.steps * network.batch
    dwx, dwh, db = np.zeros_like(wx), np.zeros_like(wh), np.zeros_like(bx)
    dh = dc = np.zeros((network.batch, n))
    for t in reversed(range(network.steps)):
        h, c, i, f, g, o, tanh = tape[t]
        dh = dh + states[t] / count
        dc = dc + dh * o * (1 - tanh**2)
        gates = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c * f * (1 - f),
                dc * i * (1 - g**2),
                dh * tanh * o * (1 - o),
            ],
            axis=1,
        )
        dwx += gates.T @ x[t]
        dwh += gates.T @ h
        db += gates.sum(0)
        dh, dc = gates @ wh, dc * f
    return [0.5 * np.sum(np.square(states)) / count, dwx, dwh, db, db]


def gru_by_hand(
    network: Network, wx: Array, wh: Array, bx: Array, bh: Array, x: Array
) -> list[Array]:
    """The same for the GRU."""
    n = network.hidden
    h = np.zeros((network.batch, n))
    tape, states = [], []
    for t in range(network.steps):
        given, recurrent = x[t] @ wx.T + bx, h @ wh.T + bh
        r, z = (_logistic((given + recurrent)[:, k * n : (k + 1) * n]) for k in (0, 1))
        new = np.tanh(given[:, 2 * n :] + r * recurrent[:, 2 * n :])
        tape.append((h, r, z, new, recurrent[:, 2 * n :]))
        h = (1 - z) * new + z * h
        states.append(h)
    count = network.steps * network.batch
    dwx, dwh, dbx, dbh = (np.zeros_like(p) for p in (wx, wh, bx, bh))
    dh = np.zeros((network.batch, n))
    for t in reversed(range(network.steps)):
        h, r, z, new, recurrent = tape[t]
        dh = dh + states[t] / count
        dnew = dh * (1 - z) * (1 - new**2)
        dr, dz = dnew * recurrent * r * (1 - r), dh * (h - new) * z * (1 - z)
        given = np.concatenate([dr, dz, dnew], axis=1)
        back = np.concatenate([dr, dz, dnew * r], axis=1)
        dwx += given.T @ x[t]
        dwh += back.T @ h
        dbx += given.sum(0)
        dbh += back.sum(0)
        dh = dh * z + back @ wh
    return [0.5 * np.sum(np.square(states)) / count, dwx, dwh, dbx, dbh]


BY_HAND = {"LSTM": lstm_by_hand, "GRU": gru_by_hand}


def products(network: Network, step: bool) -> list[tuple[int, int, int]]:
    """The matrix products; in a step also of the gradients, those of weights over all steps."""
    rows, n = network.steps * network.batch, network.hidden
    wide = network.gates * n
    shapes = [(rows, n, wide), *[(network.batch, n, wide)] * network.steps]
    if step:
        shapes += [*[(network.batch, wide, n)] * network.steps, *[(wide, rows, n)] * 2]
    return shapes


def case(network: Network, step: bool) -> Case:
    """The states of all steps, or a training step."""

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        if step:
            by_hand = BY_HAND[network.kind]
            return training.expected(
                lambda *arrays: by_hand(network, *arrays), RULE, PARAMETERS, inputs
            )
        return [with_numpy(network, np, *(a.astype(np.float64) for a in inputs.values()))]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), floors.multiplying(products(network, step)))

    made = functions(network, loss=step)
    builders = (
        training.trainers(made, RULE, PARAMETERS) if step else contestants(made, Question(VALUE))
    )
    return Case(
        name=f"{'training step' if step else 'forward'}, {network.name}",
        inputs=lambda: inputs(network),
        expected=expected,
        builders={**builders, "floor": floor},
        tolerance=1e-4,
        floor_label="the products alone, by BLAS",
        targets=(Target(times=1.5),),
    )


def cases(size: str) -> list[Case]:
    """Each network, forward and a training step."""
    return [case(network, step) for network in NETWORKS[size] for step in (False, True)]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("recurrent", cases(options.size), options)
