"""How far the cells of a grid are, read from their folders: nothing is remembered elsewhere.

A training is finished when its last checkpoint is that of its last step, an evaluation when its record is complete and
was made with the weights that lie there now. Both must have been run with the settings that the grid has today.
"""

from __future__ import annotations

import json
import shutil
from enum import Enum
from pathlib import Path

from ...configs.devices import choose_device
from ...configs.files import replace_text
from ...configs.settings.decode import decode
from ...configs.settings.load import load
from ...policies.foreign.train import LerobotTrain
from ...policies.learning.checkpoint import find_checkpoint, fingerprint, is_of
from ...policies.learning.links import linked, step_of
from ...policies.learning.run import SETTINGS
from ..ledger.record import MANIFEST, REPORT
from .grid import Cell, Step

CELL = "cell.json"
INCIDENTAL = ("out", "resume", "wandb", "engine", "address")  # settings that do not change a result


class GridError(ValueError):
    """A grid that cannot be run as it stands; the message names the cell and says what to do."""


class StepState(Enum):
    """How far a step is."""

    fresh = "to run"
    broken = "to resume"
    done = "done"


def state(cell: Cell, step: Step) -> StepState:
    """How far a step is.

    Raises:
        GridError: it was run with other settings, or judged other weights.
    """
    if not step.place.exists():
        return StepState.fresh
    if step.name != "train":
        return _evaluated(cell, step)
    return _trained_by_lerobot(cell, step) if isinstance(step.config, LerobotTrain) else _trained(cell, step)


def words(cell: Cell, step: Step) -> tuple[str, ...]:
    """The words of the command that begins or resumes a step; removes what a kill left before anything was saved."""
    now = state(cell, step)
    if now is StepState.fresh:
        shutil.rmtree(step.place, ignore_errors=True)
        return step.words
    if step.name == "train":
        return ("train", f"--resume={step.place}")
    return (*step.words, f"--resume={step.place}")


def write_cell(cell: Cell) -> None:
    """Note the commands and settings of a cell beside its results."""
    values = {
        "setting": cell.setting,
        "seed": cell.seed,
        "commands": [step.command for step in cell.steps],
        "settings": {step.name: _jsonable(step.config) for step in cell.steps},
    }
    replace_text(cell.folder / CELL, json.dumps(values, indent=1) + "\n")


def reached(step: Step) -> int:
    """The optimiser step that a training has reached, as far as its log, or its last checkpoint, says."""
    if isinstance(step.config, LerobotTrain):
        return newest_of_lerobot(step.place)
    path = step.place / "metrics.jsonl"
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2048))
        lines = file.read().decode(errors="replace").splitlines()
    return next((row["step"] for row in map(_row, reversed(lines)) if type(row.get("step")) is int), 0)


def _row(line: str) -> dict:
    """A line of a log; nothing where it is cut off or damaged."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _trained(cell: Cell, step: Step) -> StepState:
    file = step.place / SETTINGS
    if not file.is_file():
        return StepState.fresh
    then = _jsonable(decode(type(step.config), load(file, type(step.config))))
    if step.config.precision == "auto":
        then["precision"] = "auto"  # a run keeps what it stood for on its machine
    asked = _jsonable(step.config)
    for name, learner in then.items():
        if isinstance(learner, dict) and (learner.get("vision") or learner.get("language")):
            from ...policies.learning.pictures import unsettled

            then[name] = unsettled(learner, asked.get(name) or {})
    _same(cell, step, then)
    last = linked(step.place, "last")
    at = (step_of(last) or 0) if last else 0
    return StepState.done if at >= step.config.steps else StepState.broken


def _trained_by_lerobot(cell: Cell, step: Step) -> StepState:
    """Done or to run: what broke off begins anew, for `understudy lerobot-train` does not go on."""
    _same_as_noted(cell, step)
    last = newest_of_lerobot(step.place)
    return StepState.done if last >= step.config.steps else StepState.fresh


def newest_of_lerobot(run: Path) -> int:
    """The step of the last checkpoint that lerobot-train has written to the end; 0 where there is none."""
    last = (run / "checkpoints" / "last").resolve()
    return step_of(last) or 0 if (last / "pretrained_model" / "config.json").is_file() else 0


def _evaluated(cell: Cell, step: Step) -> StepState:
    manifest = step.place / MANIFEST
    if not manifest.is_file():
        return StepState.fresh

    _same_as_noted(cell, step)

    # weights that it judged
    values = json.loads(manifest.read_text())
    trained = cell.steps[0].place
    if linked(trained, "last") or newest_of_lerobot(trained):
        then = values["policy"]["fingerprint"]
        if not is_of(then, find_checkpoint(trained)):
            now = fingerprint(find_checkpoint(trained))
            raise GridError(f"{cell}: {step.place} judged other weights ({then}) than lie there now ({now}); remove it")

    # the report is drawn last
    ended = values.get("complete") and (step.place / REPORT).is_file()
    return StepState.done if ended else StepState.broken


def _same_as_noted(cell: Cell, step: Step) -> None:
    """Refuse settings other than those that the cell's file notes; one that came later had its default then."""
    noted = cell.folder / CELL
    registered = json.loads(noted.read_text())["settings"].get(step.name) if noted.is_file() else None
    if registered is None:
        raise GridError(f"{cell}: nobody knows the settings of {step.place}; remove it, or give the grid another `out`")
    _same(cell, step, _jsonable(decode(type(step.config), registered)))


def _same(cell: Cell, step: Step, then: dict) -> None:
    """Refuse settings that differ, naming the first."""
    old, new = (dict(_flat(_without_place(values))) for values in (then, _jsonable(step.config)))
    free = (*INCIDENTAL, *(("world",) if new.get("world", "") is None else ()))  # no world asked for: any will do
    for key in sorted(old.keys() | new.keys()):
        if key == "device" and _same_device(str(old.get(key)), str(new.get(key))):
            continue
        if old.get(key) != new.get(key) and key.partition(".")[0] not in free:
            raise GridError(
                f"{cell}: {step.name} was run with {key} = {old.get(key)}, the grid now says {new.get(key)}. "
                f"Give the grid another `out`, or remove {step.place}"
            )


def _without_place(values: dict) -> dict:
    """The flags of lerobot-train without the folder that it writes, which is no setting."""
    if "flags" not in values:
        return values
    return values | {"flags": [flag for flag in values["flags"] if not flag.startswith("--output_dir=")]}


def _same_device(old: str, new: str) -> bool:
    """Whether two words mean the same device here, such as `auto` and `cpu` where there is no GPU."""
    return old == new or choose_device(old) == choose_device(new)


def _jsonable(config: object) -> dict:
    """Settings as JSON gives them back."""
    import draccus

    return json.loads(json.dumps(draccus.encode(config), default=str))


def _flat(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
