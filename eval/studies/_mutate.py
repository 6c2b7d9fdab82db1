"""Small damages of files: bytes for any file, and what people and programs do to JSON, YAML, lines, tables, tensors.

Each function takes a file's bytes and a generator and returns the new bytes with words for what was done, or None where
this file cannot be damaged so. Nothing here knows what the files mean.
"""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

Damage = tuple[bytes, str]
Damager = Callable[[bytes, random.Random], Damage | None]


def damage(root: Path, files: list[str], rng: random.Random) -> str | None:
    """Damage one of the files under `root`, in place. Returns what was done, None where nothing could be."""
    name = rng.choice(files)
    path, draw = root / name, rng.random()
    if draw < 0.07:
        path.unlink()
        return f"{name}: deleted"
    others = [file for file in sorted(path.parent.glob(f"*{path.suffix}")) if file != path and file.is_file()]
    if draw < 0.15 and others:
        other = rng.choice(others)
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)
        return f"{name}: exchanged with {other.name}"
    known = STRUCTURED.get(path.suffix, ())
    damager = rng.choice(known if known and rng.random() < 0.6 else BYTES)
    done = damager(path.read_bytes(), rng)
    if done is None:
        return None
    path.write_bytes(done[0])
    return f"{name}: {done[1]}"


# -- bytes


def flip(data: bytes, rng: random.Random, first: int = 0, last: int | None = None) -> Damage | None:
    """One bit, anywhere between the two places."""
    last = len(data) if last is None else min(last, len(data))
    if first >= last:
        return None
    place = rng.randrange(max(first, 0), last)
    changed = bytearray(data)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed), f"bit {place} of {len(data)} flipped"


def flip_head(data: bytes, rng: random.Random) -> Damage | None:
    return flip(data, rng, 0, 256)


def flip_tail(data: bytes, rng: random.Random) -> Damage | None:
    return flip(data, rng, len(data) - 2048)


def truncate(data: bytes, rng: random.Random) -> Damage | None:
    if not data:
        return None
    left = rng.randrange(len(data))
    return data[:left], f"cut to {left} of {len(data)} bytes"


def zero(data: bytes, rng: random.Random) -> Damage | None:
    """A block of zeros, as a power loss leaves it."""
    count = min(len(data), rng.choice((16, 512)))
    place = rng.randrange(max(1, len(data) - count))
    return data[:place] + bytes(count) + data[place + count :], f"{count} zeros at {place} of {len(data)}"


def empty(data: bytes, rng: random.Random) -> Damage | None:
    return b"", "emptied"


def lengthen(data: bytes, rng: random.Random) -> Damage | None:
    return data + b"garbage" * 3, "garbage appended"


BYTES: tuple[Damager, ...] = (
    flip, flip, flip, flip, flip_head, flip_tail, truncate, truncate, zero, zero, empty, lengthen,
)  # fmt: skip


# -- documents


def leaves(document, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """(path, value) of all parts of a document."""
    parts = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in parts:
        yield (*path, key), value
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, key))


def edit(document, rng: random.Random):
    """(changed copy, words): a value taken out, emptied, of another type, or another value of its type."""
    found = list(leaves(document)) if isinstance(document, (dict, list)) else []
    if not found:
        return None
    path, value = rng.choice(found)
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    kind = rng.choice(("taken out", "null", "changed", "type"))
    if kind == "taken out":
        del holder[path[-1]]
        return changed, f"{path} taken out"
    new = {
        "null": lambda: None,
        "type": lambda: rng.choice(("x", [], {}, -1, 1e99, True, [1, 2, 3])),
        "changed": lambda: _another(value, rng),
    }[kind]()
    holder[path[-1]] = new
    return changed, f"{path}: {str(value)[:40]} became {str(new)[:40]}"


def _another(value, rng: random.Random):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value * 2, value + 1, -value, 0, value * 10, float("nan")))
    if isinstance(value, str):
        return rng.choice((value + "x", value.upper(), "", "../" + value))
    if isinstance(value, list):
        return rng.choice((value[::-1], value[:-1], value + value[:1]))
    return dict(list(value.items())[:-1]) if isinstance(value, dict) else 1


def edit_json(data: bytes, rng: random.Random) -> Damage | None:
    done = edit(json.loads(data), rng)
    return done and (json.dumps(done[0]).encode(), done[1])


def edit_yaml(data: bytes, rng: random.Random) -> Damage | None:
    import yaml

    done = edit(yaml.safe_load(data.decode().replace("!include ", "")), rng)
    return done and (yaml.safe_dump(done[0]).encode(), done[1])


def edit_lines(data: bytes, rng: random.Random) -> Damage | None:
    lines = data.decode().splitlines()
    if not lines:
        return None
    place, kind = rng.randrange(len(lines)), rng.choice(("lost", "doubled", "exchanged"))
    if kind == "lost":
        del lines[place]
    elif kind == "doubled":
        lines.insert(place, lines[place])
    else:
        other = rng.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    return ("\n".join(lines) + "\n").encode(), f"line {place} {kind}"


# -- tables


def edit_table(data: bytes, rng: random.Random) -> Damage | None:
    """What another program makes of a Parquet file: rows lost, doubled or mixed, columns of another name or type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    kind, name = rng.choice(TABLE_EDITS), rng.choice(table.column_names)
    try:
        table, words = _edited(table, kind, name, rng)
    except (pa.ArrowException, TypeError, ValueError, IndexError):
        return None  # this column cannot be changed so
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue(), words


TABLE_EDITS = (
    "column lost", "row lost", "rows mixed", "to text", "to whole numbers", "null", "nan", "doubled values",
    "exchanged columns", "row doubled", "to float64", "renamed column",
)  # fmt: skip


def _edited(table, kind: str, name: str, rng: random.Random):
    import pyarrow as pa

    names, row = table.column_names, rng.randrange(table.num_rows)
    words = f"{kind}: {name}"

    def cells(change: Callable, keep_type: bool = False):
        values = [change(value) for value in table[name].to_pylist()]
        column = pa.array(values, table.schema.field(name).type if keep_type else None)
        return table.set_column(names.index(name), name, column)

    def numbers(change: Callable) -> Callable:
        return lambda value: [change(part) for part in value] if isinstance(value, list) else change(value)

    if kind == "column lost":
        return table.drop_columns([name]), words
    if kind == "renamed column":
        return table.rename_columns([f"{other}x" if other == name else other for other in names]), words
    if kind == "row lost":
        return pa.concat_tables([table.slice(0, row), table.slice(row + 1)]), f"{kind}: {row}"
    if kind == "row doubled":
        return pa.concat_tables([table.slice(0, row + 1), table.slice(row)]), f"{kind}: {row}"
    if kind == "rows mixed":
        return table.take(rng.sample(range(table.num_rows), table.num_rows)), kind
    if kind == "to text":
        return cells(str), words
    if kind == "to whole numbers":
        return cells(numbers(int)), words
    if kind == "to float64":
        return cells(numbers(float)), words
    if kind == "doubled values":
        return cells(numbers(lambda value: value * 2), keep_type=True), words
    if kind == "exchanged columns":
        other = rng.choice([one for one in names if one != name])
        first, second = names.index(name), names.index(other)
        exchanged = table.set_column(first, name, table[other]).set_column(second, other, table[name])
        return exchanged, f"{words} and {other}"
    values = table[name].to_pylist()
    nothing = None if kind == "null" else float("nan")
    values[row] = [nothing] * len(values[row]) if kind == "nan" and isinstance(values[row], list) else nothing
    return table.set_column(names.index(name), name, pa.array(values, table.schema.field(name).type)), words


# -- tensors


def edit_tensors(data: bytes, rng: random.Random) -> Damage | None:
    """Another type, shape, name or value of one tensor of a safetensors file."""
    import torch
    from safetensors.torch import load, save

    tensors = load(data)
    name, kind = rng.choice(sorted(tensors)), rng.choice(TENSOR_EDITS)
    value, words = tensors[name], f"{kind}: {name} {tuple(tensors[name].shape)}"
    floating = value.is_floating_point()
    if kind == "lost":
        del tensors[name]
    elif kind == "renamed":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "one more":
        tensors["zz"] = torch.zeros(3)
    elif kind == "exchanged":
        alike = [other for other in sorted(tensors) if other != name and tensors[other].shape == value.shape]
        if not alike:
            return None
        other = rng.choice(alike)
        tensors[name], tensors[other] = tensors[other], value
        words += f" and {other}"
    elif kind in ("nan", "inf"):
        if not floating or not value.numel():
            return None
        tensors[name] = value.clone()
        tensors[name].view(-1)[rng.randrange(value.numel())] = float(kind)
    elif kind == "transposed":
        if value.ndim < 2:
            return None
        tensors[name] = value.transpose(0, 1).contiguous()
    else:
        changes = {
            "half precision": value.half() if floating else value.to(torch.int8),
            "double precision": value.double() if floating else value.to(torch.int32),
            "whole numbers": value.to(torch.int32),
            "doubled values": value * 2,
            "zeros": torch.zeros_like(value),
        }
        tensors[name] = changes[kind]
    return save(tensors), words


TENSOR_EDITS = (
    "half precision", "double precision", "whole numbers", "nan", "inf", "transposed", "lost", "renamed", "one more",
    "exchanged", "doubled values", "zeros",
)  # fmt: skip

# -- HDF5


def edit_hdf5(data: bytes, rng: random.Random) -> Damage | None:
    """What another program makes of an HDF5 file: arrays lost, renamed, cut, of another width, type or value."""
    import h5py

    file = io.BytesIO(data)
    with h5py.File(file, "r+") as root:
        names: list[str] = []
        root.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name, kind = rng.choice(names), rng.choice(HDF5_EDITS)
        values, numbers = root[name][()], root[name].dtype.kind in "fiu"
        if kind == "renamed":
            root.move(name, f"{name}x")
        elif kind == "lost":
            del root[name]
        elif kind == "row lost" and values.shape:
            del root[name]
            root[name] = values[1:]
        elif not numbers:
            return None
        else:
            del root[name]
            root[name] = _other_numbers(values, kind, rng)
    return file.getvalue(), f"{kind}: {name}"


def _other_numbers(values, kind: str, rng: random.Random):
    import numpy as np

    if kind == "transposed":
        return values.T
    if kind == "nan":
        values = values.astype(np.float64)
        values.reshape(-1)[rng.randrange(values.size)] = np.nan
        return values
    changes = {
        "a number less": lambda: values[..., :-1],
        "to text": lambda: values.reshape(-1).astype("S8"),
        "doubled values": lambda: values * 2,
    }
    return changes.get(kind, lambda: values[::-1])()


HDF5_EDITS = (
    "lost",
    "renamed",
    "row lost",
    "transposed",
    "nan",
    "a number less",
    "to text",
    "doubled values",
    "turned",
)

STRUCTURED: dict[str, tuple[Damager, ...]] = {
    ".json": (edit_json,),
    ".jsonl": (edit_lines,),
    ".yaml": (edit_yaml, edit_yaml, edit_yaml, edit_lines),
    ".parquet": (edit_table,),
    ".safetensors": (edit_tensors,),
    ".hdf5": (edit_hdf5,),
}
