"""A process that makes one training step of `mlp` as its first deed and says how long it took.

Started by `compile.py` as `python -m bench.first_result CONTESTANT THREADS SIZE BATCH OTHER_BATCH`.
Writes a JSON line as soon as the first result is there (the parent looks at its own clock), then
one about a second call and a first call with another batch size.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from time import perf_counter, sleep
from typing import Any

from bench import mlp, peers
from bench.worker import answers_apart


def timed_step(trainer: mlp.Trainer, inputs: dict[str, Any]) -> float:
    """Seconds of one step on a batch, from NumPy arrays to the loss."""
    start = perf_counter()
    float(trainer.step(trainer.place(inputs["x"], inputs["labels"])))
    return perf_counter() - start


def main(contestant: str, threads: int, size: str, batch: int, other: int) -> None:
    """Import, build, step; step again; step with the other batch size when told to go on."""
    answers = answers_apart()

    def tell(**figures: Any) -> None:
        answers.write(json.dumps(figures) + "\n")
        answers.flush()

    peers.pin(threads)
    inputs, others = (mlp.inputs(mlp.WIDTHS[size], count) for count in (batch, other))
    start = perf_counter()
    import_module(peers.CONTESTANTS[contestant].module)
    import_s = perf_counter() - start
    peers.CONTESTANTS[contestant].prepare(threads)
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
    tell(other_batch_s=other_batch_s, stages=stages)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
