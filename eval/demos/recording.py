"""A recording that can be gone on with: who acted from which initial conditions, and how, in a card of the dataset.

A killed or interrupted recording goes on with `--resume` and ends in the same files as one that was not; a folder in
which nothing was written yet is begun again by it. One process records into a folder at a time.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ...configs.command import command_of
from ...configs.files import clear_leftovers
from ...configs.former import RECORDING as FORMER
from ...configs.former import renamed
from ...configs.owner import owned
from ...configs.progress import counted
from ...configs.spec import Embodiment
from ...policies.data.writer import DOCUMENTS, ENV_SEED, EPISODES, FORMER_ENV_SEED, DatasetWriter
from ..ledger.identity import first_difference
from ..rollout.rollout import ArmError

RECORDING = DOCUMENTS[0]  # our card
LATER = ("leader",)  # parts that cards of earlier versions do not have
ELSEWHERE = {"port", "yes"}  # keys of an arm that change no episode: where it is plugged in, and whether one was asked


class Records(Protocol):
    """Settings of what records a dataset."""

    @property
    def resume(self) -> bool: ...

    @property
    def pictures(self) -> str: ...


class RecordingError(ValueError):
    """Episodes that must not be recorded, or not into this folder."""


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that cannot be recorded into, before anything heavy is done.

    Raises:
        FileExistsError: the folder exists. RecordingError: nothing there to go on with.
    """
    if resume:
        if not (out / RECORDING).is_file() and not DatasetWriter.unbegun(out):
            raise RecordingError(
                f"'{out}' holds no recording to go on with: it has no {RECORDING}; give another --out, "
                "or leave --resume out to begin one"
            )
    elif out.exists():
        known = (out / RECORDING).is_file() or DatasetWriter.unbegun(out)
        raise FileExistsError(f"'{out}' exists already; give another --out{', or --resume to go on' if known else ''}")


@contextmanager
def recording(
    out: Path,
    body: Embodiment,
    card: dict,
    config: Records,
    extra: Mapping[str, tuple[str, ...]] | None = None,
    verb: str = "demos",
    flags: Collection[str] = (),
) -> Iterator[tuple[DatasetWriter, frozenset[int]]]:
    """A writer, new or going on, for this process alone, and the env seeds whose episodes it holds already.

    Where nothing is written in the end the folder is removed. Ctrl-C, and an arm that failed, say how to go on.

    Args:
        config: settings with `resume` and `pictures`.
        extra, flags: further columns, as `DatasetWriter` takes them.
        verb: whose settings these are.

    Raises:
        InUseError: another process records there.
        RecordingError: another recording, naming what differs.
        FileExistsError: the folder exists and `config` does not resume.
    """
    check_folder(out, config.resume)
    if out.exists():
        with owned(out):
            going_on = config.resume and (out / RECORDING).is_file()
            if going_on:
                compare(out, card)
            else:
                check_folder(out, config.resume)
                shutil.rmtree(out)
    else:
        going_on = False
    clear_leftovers(out)
    writer = None
    if not going_on:
        told = card | {"command": command_of(config, verb, without=("out", "resume"))}
        documents = {RECORDING: json.dumps(told, indent=1)}
        writer = DatasetWriter(out, body, pictures=config.pictures, extra=extra, flags=flags, documents=documents)

    with owned(out):
        writer = writer or DatasetWriter.resume(out)
        try:
            yield writer, written_starts(out)
        except (KeyboardInterrupt, ArmError) as stop:
            why = f"{stop}; " if isinstance(stop, ArmError) else ""
            if not writer.episodes:
                before = "before an episode was kept; nothing is written"
                raise type(stop)(why + before if why else f"interrupted {before}") from stop
            kept = DatasetWriter.resume(out).episodes  # the tables as they should be, whenever it came
            said = f"{counted(kept, 'episode', 'is', 'are')} kept in {out}; the same command with --resume goes on"
            raise type(stop)(why + said) from stop
        finally:
            if not writer.episodes:
                writer.discard()


def written_starts(out: Path) -> frozenset[int]:
    """Env seeds of the episodes of a dataset that says them; empty for others."""
    import pyarrow.parquet

    path = out / EPISODES
    held = pyarrow.parquet.read_schema(path).names if path.exists() else ()
    column = next((name for name in (ENV_SEED, FORMER_ENV_SEED) if name in held), None)
    if column is None:
        return frozenset()
    return frozenset(pyarrow.parquet.read_table(path, columns=[column])[column].to_pylist())


def compare(out: Path, card: dict) -> None:
    """Raise RecordingError unless the folder holds the same recording."""
    then = json.loads((out / RECORDING).read_text())
    then |= {"how": renamed(then.get("how", {}), FORMER)}
    for part in card:
        if part in LATER and part not in then:
            warnings.warn(
                f"'{out}' is of an earlier version and does not say how its {part} was calibrated: that cannot be "
                "compared; go on only if nobody calibrated it anew",
                stacklevel=2,
            )
            continue
        if (found := first_difference(_compared(then.get(part)), _compared(card[part]), part)) is not None:
            what, before, now = found
            if ".calibration." in what:
                raise RecordingError(
                    f"'{out}' was recorded with another calibration: its {what} was {before}, not {now}. The same "
                    "angle would be another pose: bring the calibration file of then back and write it to the servos "
                    f"({out / RECORDING} holds it), or record into another --out"
                )
            command = f". It was made by: {then['command']}" if then.get("command") else ""
            raise RecordingError(
                f"'{out}' holds another recording: its {what} was {before}, not {now}{command}. Give that with "
                "--resume to go on with it, or another --out to begin a new one"
            )


def _compared(value: object) -> object:
    """A part of a card without what may differ in one recording. Which arm it is, its calibration says."""
    if isinstance(value, Mapping):
        return {key: _compared(one) for key, one in value.items() if key not in ELSEWHERE}
    return value
