"""What is wrong with a run folder or a checkpoint, found without training or acting: for `understudy doctor PATH`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...configs.files import HALF, PART, read_lines
from ...configs.finding import Finding
from ...configs.plugins import discover
from ...configs.progress import counted
from .checkpoint import PARENTS, _document, load_config, parents_of
from .integrity import DIGESTS, CheckpointError, load_tensors, problems
from .links import CHECKPOINTS, NAMES, linked, names_nothing, numbered
from .run import SETTINGS


def is_run(path: Path) -> bool:
    """Whether a folder is what a training writes, whole or not."""
    return (path / CHECKPOINTS).is_dir() or ((path / SETTINGS).is_file() and (path / "task_spec.yaml").is_file())


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint, of ours or of lerobot's."""
    return (path / "config.json").is_file()


def examine_run(run: Path) -> Iterator[Finding]:
    """Settings, links, logs, leftovers and every checkpoint of a run."""
    yield _settings(run)
    yield _begun(run)
    for name in NAMES:
        yield from _link(run, name)
    yield _scale(run)
    for name in ("metrics.jsonl", "evals.jsonl"):
        if (run / name).is_file():
            rows, bad = read_lines(run / name)
            bad += sum(type(row.get("step")) is not int for row in rows)
            advice = "nothing to do: a resume leaves them out"
            yield Finding(name, not bad, f"{len(rows)} lines" + (f", {bad} cannot be read" if bad else ""), advice)
    yield from _leftovers(run)
    saved = [*numbered(run), *(run / name for name in NAMES if (run / name).is_dir() and not (run / name).is_symlink())]
    if not saved:
        yield Finding("checkpoints", False, "none yet", f"understudy train --resume {run} begins from step 0")
    for folder in saved:
        yield from examine_checkpoint(folder)


def examine_checkpoint(folder: Path) -> Iterator[Finding]:
    """Digests, documents and numbers of a checkpoint, and of the parents of a mixture."""
    try:
        document = _document(folder)
        foreign = "kind" not in document
        if not foreign:
            load_config(document, folder)
        wrong = list(_foreign_problems(folder) if foreign else problems(folder))
    except (CheckpointError, LookupError, OSError) as error:
        wrong, foreign = [str(error)], False
    hashed = "all files are those that were saved" if (folder / DIGESTS).is_file() else "no digests: numbers only"
    name = f"checkpoint {folder.name}"
    if not wrong:
        yield Finding(name, True, hashed)
    for complaint in wrong:
        yield Finding(name, False, complaint, "bring a whole copy, or use an older checkpoint", needed=True)
    for parent in parents_of(folder) if (folder / PARENTS).is_dir() else ():
        yield from examine_checkpoint(parent)


def _foreign_problems(folder: Path) -> Iterator[str]:
    """Of another program's checkpoint: weights that cannot be read or are not numbers."""
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            tensors = load_tensors(file)
        except CheckpointError as error:
            yield str(error)
            continue
        for name, values in tensors.items():
            if values.is_floating_point() and bool(values.isnan().any()):
                yield f"'{name}' in {file} holds NaN"


def _settings(run: Path) -> Finding:
    from .doors import DoorError, read_settings
    from .train import Train

    if not (run / SETTINGS).is_file():
        advice = f"it holds nothing to go on with: understudy train CONFIG.yaml --out {run}"
        return Finding(SETTINGS, False, f"{run} has none: its training died before it began", advice, needed=True)
    discover("policies")
    try:
        config = read_settings(run, Train)
    except (DoorError, LookupError, OSError) as error:
        return Finding(SETTINGS, False, str(error), "", needed=True)
    return Finding(SETTINGS, True, f"{counted(config.steps, 'step')} on {config.data}")


def _begun(run: Path) -> Finding:
    from .doors import BEGUN, DoorError, held_out_in, read_begun

    try:
        begun = read_begun(run)
    except DoorError as error:
        return Finding(BEGUN, False, str(error))
    if not begun:
        return Finding(BEGUN, True, "none (an earlier version's run): a resume cannot tell whether its data changed")
    about, held = begun["dataset"], held_out_in(run)
    known = "" if held is None else f" ({held or 'none'} held out)"
    return Finding(
        BEGUN,
        True,
        f"{counted(about.get('episodes'), 'episode')}{known}, {counted(about.get('frames'), 'frame')} of "
        f"{about.get('source')}",
    )


def _link(run: Path, name: str) -> Iterator[Finding]:
    place, found = run / name, linked(run, name)
    if names_nothing(run, name):
        saved = numbered(run)
        advice = f"give a checkpoint: {saved[-1]}" if saved else f"begin anew: understudy train CONFIG.yaml --out {run}"
        yield Finding(name, False, f"{place} names a checkpoint that is not there", advice, needed=True)
    elif found is not None:
        copy = place.is_dir() and not place.is_symlink()
        kind = "a copy in place of a link; the next save replaces it" if copy else f"means {found.name}"
        yield Finding(name, True, kind)


def _scale(run: Path) -> Finding:
    """Whether the scale that the run hands on is the one it acts in."""
    from ..data.task_spec import load_task_spec
    from .doors import scale_differs

    folder = linked(run, "last")
    try:
        spec = load_task_spec(run)
        differs = folder is not None and scale_differs(folder, spec)
    except (OSError, ValueError, TypeError) as error:
        return Finding("task_spec.yaml", False, str(error), "the weights hold the scale; they act as before")
    if differs:
        detail = f"task_spec.yaml of {run} holds another action scale than its weights act in"
        return Finding("task_spec.yaml", False, detail, "do not use it as --scale; train the run again", needed=False)
    return Finding("task_spec.yaml", True, "the action scale of the weights")


def _leftovers(run: Path) -> Iterator[Finding]:
    """What a killed process left beside; the next save clears it."""
    for place in (run, run / CHECKPOINTS):
        for path in sorted(place.glob(".*")) if place.is_dir() else ():
            if path.name.endswith((HALF, PART)):
                yield Finding(
                    "leftover", False, str(path), "half-written by a process that died; the next save clears it"
                )
