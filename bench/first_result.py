"""A process that makes one training step as its first deed and says how long it took.

Started by `compile.py` as `python -m bench.first_result CONTESTANT THREADS SIZE BATCH OTHER_BATCH`
for the network of `mlp`, or with the name of one of `starts.py` for the batches. Writes a JSON line
as soon as the first result is there (the parent looks at its own clock), then one about a second
call and, of `mlp`, a first call with another batch size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter, sleep
from typing import Any

from bench import memory, mlp, peers, starts
from bench.worker import answers_apart


def timed_step(trainer: mlp.Trainer, inputs: dict[str, Any]) -> float:
    """Seconds of one step on a batch, from NumPy arrays to the loss."""
    start = perf_counter()
    float(trainer.step(trainer.place(inputs["x"], inputs["labels"])))
    return perf_counter() - start


def teller() -> Callable[..., None]:
    """A function that writes figures to standard output at once."""
    answers = answers_apart()

    def tell(**figures: Any) -> None:
        answers.write(json.dumps(figures) + "\n")
        answers.flush()

    return tell


def seconds_to_import(contestant: str, threads: int) -> float:
    start = perf_counter()
    import_module(peers.CONTESTANTS[contestant].module)
    seconds = perf_counter() - start
    peers.CONTESTANTS[contestant].prepare(threads)
    return seconds


def main_of_program(contestant: str, threads: int, size: str, name: str) -> None:
    """Import, build and call one of the programs; call it again."""
    tell = teller()
    peers.pin(threads)
    case = starts.programs(size)[name]
    inputs = case.inputs()
    import_s = seconds_to_import(contestant, threads)
    start = perf_counter()
    prepared = case.builders[contestant](inputs)
    call = prepared.call
    call()
    tell(import_s=import_s, first_call_s=perf_counter() - start)
    start = perf_counter()
    call()
    second_call_s = perf_counter() - start
    made = prepared.executable() if prepared.executable is not None else None
    tell(
        second_call_s=second_call_s,
        stages=made.seconds if made is not None else {},
        most_bytes=memory.resident("VmHWM"),
        imports_numba="numba" in sys.modules,
    )


def main(contestant: str, threads: int, size: str, batch: int, other: int) -> None:
    """Import, build, step; step again; step with the other batch size when told to go on."""
    tell = teller()
    peers.pin(threads)
    inputs, others = (mlp.inputs(mlp.WIDTHS[size], count) for count in (batch, other))
    import_s = seconds_to_import(contestant, threads)
    start = perf_counter()
    trainer = mlp.TRAINERS[contestant](inputs["parameters"])
    timed_step(trainer, inputs)
    tell(import_s=import_s, first_call_s=perf_counter() - start)
    second_call_s = timed_step(trainer, inputs)
    sleep(0.1)
    tell(second_call_s=second_call_s)
    sys.stdin.readline()  # the parent counts what has been compiled so far
    other_batch_s = timed_step(trainer, others)
    stages = trainer.stages(trainer.place(inputs["x"], inputs["labels"]))
    tell(other_batch_s=other_batch_s, stages=stages, imports_numba="numba" in sys.modules)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        main_of_program(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
