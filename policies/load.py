"""What acts, of any folder: a policy of ours, a composition with its parents, a policy of lerobot's.

The one place that knows all three; `learning/checkpoint.py` knows checkpoints of single models alone. Here compositions
are saved, too, since their parents may come from anywhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..configs.spec import UNKNOWN, Embodiment, unnamed
from .address import is_address, open_address
from .data.embody import over, read_embodiment
from .learning.checkpoint import (
    PARENTS,
    TRAINING,
    CheckpointError,
    _describe,
    _document,
    _info,
    _put,
    find_checkpoint,
    load_config,
    load_model,
    parents_of,
)
from .learning.integrity import DIGESTS, verify, write_digests
from .policy import Planner


def load_policy(path: str | Path, embodiment: str | Path | Embodiment | None = None) -> tuple[nn.Module, dict]:
    """What acts, of a run or checkpoint folder: a policy, or a composition with its parents; see `load_model`.

    An address, such as ws://HOST:PORT, is a policy on another computer (`address.py`).
    A checkpoint of lerobot's acts too (`foreign/planner.py`); `embodiment` says for whom, mostly a file. Of
    a policy of ours it states what nobody stated at its training, and may not contradict the rest.
    """
    file = None if isinstance(embodiment, Embodiment) else embodiment
    if is_address(path):
        return open_address(str(path), None if file is None else str(file))
    folder = find_checkpoint(path)
    document = _document(folder)
    if "kind" not in document and "type" in document:
        from .foreign.offered import is_offered, open_offered
        from .foreign.planner import load_foreign

        if is_offered(document):  # one of ours that lerobot trained
            policy, info = open_offered(folder, document)
            if file is not None:
                policy.embodiment = completed(policy.embodiment, file, folder)
            return policy, info

        planner, info = load_foreign(folder, embodiment)
        _check_finite(planner, folder)
        return planner, info
    if document.get("kind") != "mixture":
        policy, info = load_model(folder, "policy")
        if file is not None:
            policy.embodiment = completed(policy.embodiment, file, folder)
        return policy, info
    if file is not None:
        raise CheckpointError(f"{folder} is a composition; state who acts in its parents, not with --embodiment")
    verify(folder)
    parents = [load_policy(parent)[0] for parent in parents_of(folder)]
    try:
        return load_config(document, folder).build(parents).eval(), _info(folder, document)
    except (ArithmeticError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} describes no mixture of its parents ({error})") from error


def completed(body: Embodiment, file: str | Path, folder: Path) -> Embodiment:
    """The embodiment of a checkpoint with what a file states and the training did not know.

    Raises:
        CheckpointError: the file contradicts what was stated.
        DatasetError: it cannot be read.
    """
    told = read_embodiment(file)
    values = json.loads(body.to_json())
    meant = Embodiment.from_dict(over(values, told))
    for part in ("action", "mode", "frame", "rotation", "rate", "limits", "action_units", "state", "state_units"):
        before, now = getattr(body, part), getattr(meant, part)
        if part.endswith("_units") and len(before) == len(now):
            same = all(one in (other, UNKNOWN) for one, other in zip(before, now, strict=True))
        elif part in ("action", "state"):
            same = before == now or (unnamed(before) and len(before) == len(now))
        else:
            same = before == now or not body.states(part)
        if not same:
            raise CheckpointError(
                f"{file} says {part} {_shown(now)}, but {folder} was trained for {_shown(before)}; leave it out there"
            )
    return meant


def _shown(value: object) -> str:
    return str(getattr(value, "value", value))


def save_mixture(folder: str | Path, mixture: Planner, parents: Sequence[str | Path]) -> None:
    """Write a checkpoint of a composition: its settings, and copies of its parents without their training state.

    Args:
        mixture: what acts; it has a `config` and its `parents`.
        parents: run or checkpoint folder of each parent, in the same order.
    Raises:
        CheckpointError: not one folder a parent, or one that holds something else than the parent.
        OSError: the disk is full or not writable; nothing half-written stays.
    """
    folder, found = Path(folder), [find_checkpoint(path) for path in parents]
    if len(found) != len(mixture.parents):
        raise CheckpointError(f"a mixture of {len(mixture.parents)} parents needs as many folders, got {len(found)}")
    for place, (path, parent) in enumerate(zip(found, mixture.parents, strict=True), 1):
        if not _holds(path, parent):
            raise CheckpointError(f"{path} does not hold parent {place} of the mixture; give the folders in its order")

    def fill(half: Path) -> None:
        _describe(half, "mixture", mixture.config, mixture.embodiment)
        for place, path in enumerate(found):
            copy = shutil.copytree(path, half / PARENTS / str(place), ignore=shutil.ignore_patterns(TRAINING))
            if not (copy / "embodiment.json").is_file():  # of another program: its dataset may not come along
                (copy / "embodiment.json").write_text(mixture.parents[place].embodiment.to_json())
            if (copy / DIGESTS).is_file():  # without the training state, which stays behind
                write_digests(copy)

    folder.parent.mkdir(parents=True, exist_ok=True)
    _put(folder, fill)


def _check_finite(planner: nn.Module, folder: Path) -> None:
    """Raises CheckpointError naming the first weight that is no number."""
    for name, values in planner.named_parameters():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise CheckpointError(f"'{name}' of {folder} holds NaN or infinity; the weights are damaged")


def _holds(folder: Path, parent: nn.Module) -> bool:
    """Whether a checkpoint has the weights of a parent, to the bit."""
    theirs, ours = load_policy(folder)[0].state_dict(), parent.state_dict()
    return theirs.keys() == ours.keys() and all(bool((theirs[key] == ours[key].cpu()).all()) for key in theirs)
