"""A program as files for C: objects, header, example."""

from __future__ import annotations

import os
import re
from pathlib import Path

from graphdl.errors import ArgumentError
from graphdl.kernels.cpu.image import Image
from graphdl.native import c_object, c_text
from graphdl.native.nesting import identifiers
from graphdl.native.signature import Signature


def export(
    image: Image, signature: Signature, folder: str | os.PathLike[str], name: str | None
) -> list[Path]:
    """Write the files; see Executable.export_c."""
    where = Path(folder)
    own = identifiers([where.resolve().name])[0] if name is None else name
    if not re.fullmatch(r"[A-Za-z_]\w*", own, re.ASCII) or own in c_text.RESERVED:
        raise ArgumentError(f"name={own!r} is no name of a function in C")
    needed = c_object.routines(image)
    texts = {
        f"{own}.h": c_text.header(signature, own, needed),
        f"{own}_example.c": c_text.example(signature, own, ["-lblas"] if needed else []),
    }
    parts = c_object.parts(image, signature, own)
    where.mkdir(parents=True, exist_ok=True)
    written = []
    for file, text in texts.items():
        (where / file).write_text(text, encoding="utf-8")
        written.append(where / file)
    for part in parts:
        (where / f"{part.name}.o").write_bytes(part.code)
        written.append(where / f"{part.name}.o")
    return written
