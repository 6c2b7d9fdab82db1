"""Checkpoints: a folder written beside and renamed, never half; no pickle.

    <step:08d>/config.json        {format, kind: policy | critic | world | mixture, type, config}
               embodiment.json    who acts
               model.safetensors  the weights that act (averaged), with the scaling
               training_state/    what a resumed run needs: raw weights, optimiser, generators, progress
               parents/<number>/  instead of the last two, of a mixture: its parents' checkpoints

A run folder holds `checkpoints/` and the relative links `last` and `best`, replaced by rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import draccus

from ...configs.files import HALF, replace_file, replace_folder
from ...configs.former import policy_settings
from ...configs.parse import decode_choice
from ...configs.plugins import discover, lookup
from ...configs.pointers import why_unread
from ...configs.spec import Embodiment

if TYPE_CHECKING:  # torch takes seconds, and who only asks where a checkpoint is needs none of it
    from torch import Tensor, nn

    from ..policy import CompositionConfig, CriticConfig, PolicyConfig, Scales

FORMAT = 1
KINDS = ("policy", "critic", "mixture")
TRAINING, PARENTS = "training_state", "parents"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which part and what to do."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    kind: str,
    config: PolicyConfig | CriticConfig,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    documents: Mapping[str, object] | None = None,
) -> None:
    """Write one checkpoint beside and rename it into place.

    Args:
        model: the weights that act; must have an `embodiment`.
        tensors: file name -> tensors of the training state.
        documents: file name -> JSON-able part of the training state.
    Raises:
        OSError: the disk is full or not writable; nothing half-written stays.
    """
    from safetensors.torch import save_file

    def fill(half: Path) -> None:
        (half / TRAINING).mkdir()
        _describe(half, kind, config, model.embodiment)
        save_file(_plain(model.state_dict()), half / "model.safetensors")
        for name, values in (tensors or {}).items():
            save_file(_plain(values), half / TRAINING / name)
        for name, document in (documents or {}).items():
            _write(half / TRAINING / name, document)

    _put(folder, fill)


def parents_of(folder: str | Path) -> list[Path]:
    """The parents' folders in the checkpoint of a mixture, in order; none for other checkpoints."""
    inside = (Path(folder) / PARENTS).glob("*")
    return sorted((path for path in inside if path.name.isdigit()), key=lambda path: int(path.name))


def acting_files(folder: str | Path) -> list[Path]:
    """The files of a checkpoint that say how it acts, in a fixed order; of a mixture with those of its parents.

    Of a folder that another program wrote, all its files.
    """
    folder = Path(folder)
    kind = _read(folder / "config.json").get("kind")
    if kind not in KINDS:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    if kind != "mixture":
        return [folder / name for name in ("config.json", "embodiment.json", "model.safetensors")]
    own = [folder / "config.json", folder / "embodiment.json"]
    return own + [file for parent in parents_of(folder) for file in acting_files(parent)]


def _describe(half: Path, kind: str, config: draccus.ChoiceRegistry, embodiment: Embodiment) -> None:
    name = config.get_choice_name(type(config))
    settings = {"type": name} | draccus.encode(config)  # draccus 0.11 leaves the type of the outermost choice out
    _write(half / "config.json", {"format": FORMAT, "kind": kind, "type": name, "config": settings})
    (half / "embodiment.json").write_text(embodiment.to_json())


def _put(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder beside, then rename it into place."""
    from safetensors import SafetensorError

    def make(half: Path) -> None:
        half.mkdir()
        fill(half)

    try:
        replace_folder(folder, make, settle=True)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"checkpoint {folder} could not be written ({error}); earlier checkpoints are untouched"
        ) from error


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder of `path`: itself, or a run's `best`, else its `last`. Raises FileNotFoundError.

    Of lerobot's, `pretrained_model` in a checkpoint or in the last one of a training. What is no path here but a name
    on the hub (`OWNER/NAME`, with `@REVISION` for another than the newest) is fetched.
    """
    path = _local(os.path.expandvars(path))
    theirs = ("pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model")
    for candidate in (path, path / "best", path / "last", *(path / name for name in theirs)):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    there = "it holds neither 'best' nor 'last'" if path.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"'{path}' is not a run or checkpoint: {there}. Give the folder that `understudy train` wrote"
    )


def _local(source: str) -> Path:
    """The path, or where the files of a name on the hub lie. Raises FileNotFoundError if they cannot be had."""
    from ..hub import HubError, fetch_model, is_hub_id

    if not is_hub_id(source):  # asked of the text: "./a/b" is a path
        return Path(source)
    try:
        return fetch_model(source)
    except HubError as error:
        raise FileNotFoundError(f"'{source}' is not a run or checkpoint: {error}") from error


def load_model(path: str | Path, kind: str) -> tuple[nn.Module, dict]:
    """Load what acts, in evaluation mode.

    Returns:
        (model, info) with info = {"path", "step", "type", "config"}.
    Raises:
        CheckpointError: another kind, a newer format, weights that do not fit.
        LookupError: a type that no file registers.
    """
    folder = find_checkpoint(path)
    document = _document(folder)
    found = document.get("kind", "checkpoint of another program")
    if found != kind:
        raise CheckpointError(f"{folder} holds a {found}, not a {kind}")
    config = load_config(document)
    embodiment = Embodiment.from_json((folder / "embodiment.json").read_text())
    model = config.build(embodiment, blank_scales(embodiment))
    load_weights(model, folder / "model.safetensors")
    return model.eval(), _info(folder, document)


def _document(folder: Path) -> dict:
    document = _read(folder / "config.json")
    if document.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a newer understudy (format {document['format']}); upgrade to read it"
        )
    return document


def _info(folder: Path, document: dict) -> dict:
    step = int(folder.name) if folder.name.isdigit() else None
    settings = policy_settings(document["config"])  # of an earlier version, under today's names
    return {"path": str(folder), "step": step, "type": document["type"], "config": settings}


def load_config(document: dict) -> PolicyConfig | CriticConfig | CompositionConfig:
    """The settings in a checkpoint's `config.json`."""
    settings = with_former_defaults(document["kind"], {**document["config"], "type": document["type"]})
    return decode_choice(_registry(document["kind"]), settings)


def with_former_defaults(kind: str, settings: Mapping) -> dict:
    """The saved settings of a policy, critic or mixture; what they do not say yet is as it was when they were saved.

    Raises:
        LookupError: a type that no file registers.
    """
    discover("policies")
    base = _registry(kind)
    lookup(f"{kind} type", settings["type"], base.get_known_choices())
    return {**base.get_choice_class(settings["type"]).BEFORE, **settings}


def _registry(kind: str) -> type[draccus.ChoiceRegistry]:
    """Where the settings of this kind of checkpoint are registered."""
    from ..policy import CompositionConfig, CriticConfig, PolicyConfig

    return dict(zip(KINDS, (PolicyConfig, CriticConfig, CompositionConfig), strict=True))[kind]


def load_weights(model: nn.Module, file: Path) -> None:
    """Read weights into `model`, refusing names or shapes that differ."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, OSError) as error:
        reason = why_unread(file, error)
        raise CheckpointError(f"{file} cannot be read ({reason}); the file is damaged or missing") from error
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not fit the network that its config describes: {error}") from error


def blank_scales(embodiment: Embodiment) -> Scales:
    """Scales of the right shapes, to be overwritten by saved ones."""
    from ..policy import Scales

    dims = len(embodiment.action)
    vectors = {k: ((0.0,) * len(v), (1.0,) * len(v)) for k, v in embodiment.offers().items() if "images" not in k}
    return Scales(action=((-1.0,) * dims, (1.0,) * dims), states=vectors)


def point(run: Path, name: str, folder: Path) -> None:
    """Make the link `run/name` point to a checkpoint, by rename."""
    replace_file(run / name, lambda fresh: fresh.symlink_to(os.path.relpath(folder, run)))


def rotate(run: Path, keep: int, every: int = 0, held: frozenset[Path] = frozenset()) -> None:
    """Delete checkpoints but the newest `keep`, `last`, `best`, multiples of `every` steps, and those `held`."""
    kept = held | {(run / name).resolve() for name in ("last", "best") if (run / name).exists()}
    folders = sorted(path for path in (run / "checkpoints").glob("*") if path.name.isdigit())
    for folder in folders[: max(len(folders) - keep, 0)]:
        if folder.resolve() not in kept and not (every and int(folder.name) % every == 0):
            shutil.rmtree(folder)
    for leftover in (run / "checkpoints").glob(f".*{HALF}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _plain(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().cpu() for name, value in values.items()}


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def fingerprint(folder: Path) -> str:
    """Hash of the weights and settings that act."""
    digest = hashlib.sha256()
    for file in acting_files(folder):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
