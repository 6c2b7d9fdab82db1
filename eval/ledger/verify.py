"""What cannot be in a record: rows that contradict its manifest, each other or themselves, and files that were changed.

Every function gives sentences, none where all is well; `record.py` refuses a record by the first, `understudy doctor`
prints them all. Tolerances are those of float32. Knows how a row reads, not how it came about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

NEAR = 1e-5  # of progress, a float32 in 0..1
SELF = "manifest.json"  # among a manifest's digests: that of the manifest without this one
ROWS_DIGEST = "rows"  # that of the rows of the table, however they are packed
DIGESTS = "digests"
TIMES = ("wall_physics", "wall_render", "wall_policy")
COUNTS = {"length": 0, "first_success": -1, "attempt": 0, "worker": -1}  # column -> smallest value


def impossible(table, manifest: Mapping, columns: Iterable[str]) -> Iterator[str]:
    """What is wrong with the rows of `table`, in words that name env seeds.

    Args:
        columns: those that no row may lack.
    """
    yield from _empty_cells(table, columns)
    column = {name: table[name].to_pylist() for name in ("initial_conditions", "env_seed", "error", "labels")}
    seeds = column["env_seed"]
    if None in seeds or None in column["initial_conditions"]:
        return

    yield from _places(list(zip(column["initial_conditions"], seeds, strict=True)), manifest)
    yield from _number_of_rows(len(seeds), manifest)

    say = _Says(seeds)
    numbers = {name: _numbers(table, name) for name in (*COUNTS, *TIMES, "best_progress", "final_progress", "return")}
    for name, smallest in COUNTS.items():
        yield from say(f"{name} below {smallest}", numbers[name] < smallest)
    for name in TIMES:
        yield from say(f"{name} is no time of 0 s or more", ~((numbers[name] >= 0) & np.isfinite(numbers[name])))

    success, first, length = _numbers(table, "success") > 0, numbers["first_success"], numbers["length"]
    ended = np.array([bool(error) for error in column["error"]], bool)
    scored = np.array([_scored(text) for text in column["labels"]], bool)  # by a person, in place of the world
    yield from say("success, but first_success says never", success & (first < 0))
    yield from say("no success, but first_success says when", ~success & (first >= 0))
    yield from say("first_success after the episode's end", first > length)
    yield from say("success of an episode that ended in an error", success & ended & ~scored)
    yield from say("return is no number", ~np.isfinite(numbers["return"]) & ~ended)
    yield from say("labels are no JSON object", np.array([_labels(text) is None for text in column["labels"]], bool))
    yield from _progress(table, numbers, scored, say)


def changed(root: Path, manifest: Mapping, names: Sequence[str] | None = None) -> Iterator[str]:
    """Files of a record that are not what its manifest says was written.

    Args:
        names: those to look at; default all that have a digest.
    """
    digests = manifest.get(DIGESTS)
    if digests is None:
        return
    if not isinstance(digests, Mapping) or not all(isinstance(value, str) for value in digests.values()):
        yield f"{SELF}: '{DIGESTS}' are not names with a sha256 each"
        return
    for name in digests if names is None else [name for name in names if name in digests]:
        if name == ROWS_DIGEST:
            continue  # see `changed_rows`
        if name == SELF:
            if digests[name] != manifest_digest(manifest):
                yield f"{SELF} was changed since it was written (its sha256 differs)"
            continue
        path = inside(root, name)
        if path is None:
            yield f"{name} lies outside of the record"
        elif not path.is_file():
            yield f"{name} is missing"
        elif digests[name] != digest(path):
            yield f"{name} was changed since it was written (its sha256 differs)"


def changed_rows(table, manifest: Mapping) -> Iterator[str]:
    """Whether the rows are not those that the manifest says were written."""
    digests = manifest.get(DIGESTS)
    told = digests.get(ROWS_DIGEST) if isinstance(digests, Mapping) else None
    if told is not None and told != rows_digest(table):
        yield "its rows were changed since they were written (their sha256 differs)"


def rows_digest(table) -> str:
    """The sha256 of a table's names, types and values, however they are packed, in hex."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        found.update(f"{name} {column.type}\n".encode())
        if pa.types.is_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), -1)
            found.update(np.ascontiguousarray(lengths.to_numpy(zero_copy_only=False)).tobytes())
            column = pc.list_flatten(column)
        if pa.types.is_floating(column.type):
            found.update(np.ascontiguousarray(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
            found.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
        else:
            found.update(json.dumps(column.to_pylist()).encode())
    return found.hexdigest()


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_digest(manifest: Mapping) -> str:
    """The sha256 of a manifest's content, whatever its order and spaces, in hex; its digests' own one left out."""
    values = dict(manifest) | {DIGESTS: {k: v for k, v in manifest.get(DIGESTS, {}).items() if k != SELF}}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def sealed(manifest: Mapping) -> dict:
    """A manifest that is complete, with its digest, the seal: it covers every file whose sha256 the manifest tells."""
    told = json.loads(json.dumps(manifest, default=str))  # as it will be read
    return dict(manifest) | {DIGESTS: {SELF: manifest_digest(told)}}


def inside(root: Path, name: str) -> Path | None:
    """The file that a record in `root` names, with all links resolved; None where that leaves the record."""
    folder = root.resolve()
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a circle of links, a zero byte
        return None
    return path if path != folder and path.is_relative_to(folder) else None


class _Says:
    """Puts the env seeds of the wrong rows behind what is wrong."""

    def __init__(self, seeds: Sequence[int]):
        self.seeds = np.asarray(seeds)

    def __call__(self, what: str, wrong: np.ndarray) -> Iterator[str]:
        if len(self.seeds) and wrong.any():
            yield f"{what}: {_listed(self.seeds[wrong].tolist())}"


def _listed(seeds: Sequence[int], shown: int = 5) -> str:
    more = f" and {len(seeds) - shown} more" if len(seeds) > shown else ""
    return f"env seed {', '.join(map(str, seeds[:shown]))}{more}"


def _empty_cells(table, columns: Iterable[str]) -> Iterator[str]:
    for name in columns:
        if empty := table[name].null_count:
            yield f"column '{name}' is empty in {empty} of {len(table)} rows"


def _places(keys: list[tuple[str, int]], manifest: Mapping) -> Iterator[str]:
    """Rows given twice, out of order, or of initial conditions that the run was not to have."""
    say = _Says([seed for _, seed in keys])
    seen, again = set(), []
    for key in keys:
        again.append(key in seen)
        seen.add(key)
    yield from say("a row for an initial condition that has one already", np.array(again, bool))
    if not any(again):
        yield from say(
            "rows out of order", np.array([False, *(a > b for a, b in zip(keys, keys[1:], strict=False))], bool)
        )

    starts = manifest.get("starts")
    starts = starts if isinstance(starts, Mapping) else {}
    first, count, kind = (starts.get(name) for name in ("first", "count", "set"))
    if isinstance(first, int) and isinstance(count, int):
        grows = manifest.get("complete") is not True and len(keys) > count  # a search says how many when it closes
        end = float("inf") if grows else first + count
        outside = np.array([not first <= seed < end for _, seed in keys], bool)
        yield from say(f"a row outside of the manifest's env seeds {first}..{first + count - 1}", outside)
    if isinstance(kind, str):
        yield from say(f"initial conditions other than '{kind}'", np.array([own != kind for own, _ in keys], bool))


def _number_of_rows(n: int, manifest: Mapping) -> Iterator[str]:
    episodes, starts = manifest.get("episodes"), manifest.get("starts")
    if isinstance(episodes, int) and episodes != n:
        yield f"{n} rows, but the manifest says {episodes} episodes"
    count = starts.get("count") if isinstance(starts, Mapping) else None
    if manifest.get("complete") is True and isinstance(count, int) and count != n:
        yield f"{n} rows, but the manifest says that all of {count} episodes were run"


def _progress(table, numbers: Mapping[str, np.ndarray], scored: np.ndarray, say: _Says) -> Iterator[str]:
    """The curves of progress: inside 0..1, as long as their episode, with the best and final value told."""
    for name in ("best_progress", "final_progress"):
        yield from say(f"{name} is no number in 0..1", ~_share(numbers[name]))

    curves = [np.asarray(curve, np.float64) for curve in table["progress"].to_pylist() if curve is not None]
    if len(curves) != len(table):
        return
    lengths = np.array([len(curve) for curve in curves])
    yield from say("progress is no number in 0..1", np.array([not _share(curve).all() for curve in curves], bool))
    yield from say("progress has not a value for each step of its length", lengths != numbers["length"])
    best = np.array([curve.max(initial=0) for curve in curves])
    final = np.array([curve[-1] if len(curve) else 0.0 for curve in curves])
    for name, own in (("best_progress", best), ("final_progress", final)):
        yield from say(f"{name} is not that of its progress", ~scored & (np.abs(own - numbers[name]) > NEAR))


def _share(values: np.ndarray) -> np.ndarray:
    return (values >= -NEAR) & (values <= 1 + NEAR)


def _numbers(table, name: str) -> np.ndarray:
    """A column as float64; NaN where it is empty."""
    return np.asarray([np.nan if value is None else value for value in table[name].to_pylist()], np.float64)


def _labels(text: str | None) -> dict | None:
    try:
        values = json.loads(text or "{}")
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _scored(text: str | None) -> bool:
    return "measured" in (_labels(text) or {})
