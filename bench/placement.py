"""Where the contestants compute: on the CPU, or with `--target cuda` on a GPU.

The target reaches the workers by the environment, as the number of threads does. What a builder
asks of it is here, so that a question is written once for both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VARIABLE = "BENCH_TARGET"


def target() -> str:
    """ "cpu", or "cuda" or "cuda:1" for a GPU."""
    return os.environ.get(VARIABLE, "cpu")


@contextmanager
def targeting(name: str) -> Iterator[None]:
    """For a while the target is `name`, here and for workers started meanwhile."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def on_gpu() -> bool:
    return target() != "cpu"


def compiled(f: Callable[..., Any], donate: tuple[int, ...] = ()) -> Any:
    """`f` compiled by graphdl for the target."""
    import graphdl as gd

    return gd.compile(f, target=target(), donate=donate)


def put(tree: Any) -> Any:
    """Arrays as graphdl takes them without a copy: on the GPU if that is the target."""
    import graphdl as gd

    return gd.device_put(tree, target()) if on_gpu() else tree


def tensor(array: Array) -> Any:
    """An array as PyTorch's, on the GPU if that is the target."""
    import torch

    made = torch.from_numpy(array)
    return made.to(target()) if on_gpu() else made


def returning_numpy(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with its results as NumPy's arrays, where they are not already."""
    if not on_gpu():
        return f
    import graphdl as gd

    return lambda *args: gd.device_get(f(*args))


def host(value: Any) -> Array:
    """Anybody's array as NumPy's."""
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().cpu()
    return np.asarray(value)


def waiting(call: Callable[[], object], contestant: str) -> Callable[[], object]:
    """A call that returns when its results are there, as those of the CPU do by themselves.

    JAX's builders wait in their own way (`block_until_ready`).
    """
    finish = _FINISH.get(contestant) if on_gpu() else None
    if finish is None:
        return call

    def waited() -> object:
        result = call()
        finish()
        return result

    return waited


def _finish_torch() -> None:
    import torch

    torch.cuda.synchronize(target())


def _finish_graphdl() -> None:
    from graphdl.kernels.cuda.device import device_of

    device_of(target()).wait()


_FINISH: dict[str, Callable[[], None]] = {
    "graphdl": _finish_graphdl,
    "floor": _finish_graphdl,
    "torch": _finish_torch,
    "torch-compile": _finish_torch,
}
