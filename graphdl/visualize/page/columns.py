"""Records of one kind as columns, each name once: less text, which a browser reads sooner.

A column of few values that repeat is the list of those values and, for each record, which of them
it has. `unpack.js` reads it: a record there looks its facts up when it is asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def columns(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `columns.records` turns back: JSON values, where a fact that a record lacks is null.

    >>> found = columns([{"op": "input", "bytes": 8}, {"op": "multiply", "bytes": 64, "flops": 8}])
    >>> found["columns"]["bytes"], found["columns"]["flops"]
    ([8, 64], [None, 8])
    >>> records(found)[0]
    {'op': 'input', 'bytes': 8}
    """
    names = dict.fromkeys(name for record in records for name in record)
    return {
        "count": len(records),
        "columns": {name: _column([record.get(name) for record in records]) for name in names},
    }


def records(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a table, without what is null."""
    found: list[dict[str, Any]] = [{} for _ in range(table["count"])]
    for name, column in table["columns"].items():
        values = [column["of"][at] for at in column["at"]] if isinstance(column, dict) else column
        for record, value in zip(found, values, strict=True):
            if value is not None:
                record[name] = value
    return found


def _column(values: Sequence[Any]) -> Sequence[Any] | dict[str, Sequence[Any]]:
    """The values, or the different ones with the place of each, whichever is shorter."""
    texts = [repr(value) for value in values]
    first: dict[str, int] = {}
    places = [first.setdefault(text, len(first)) for text in texts]
    shorter = sum(map(len, first)) + sum(len(str(at)) for at in places) < sum(map(len, texts))
    if not shorter:
        return values
    different: list[Any] = [None] * len(first)
    for value, at in zip(values, places, strict=True):
        different[at] = value
    return {"of": different, "at": places}
