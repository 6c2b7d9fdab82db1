"""Whether a checkpoint is what was saved: digests of all its files, and in any case numbers that can be.

    digests.json        {format, sha256: {file: hash}}, every file of the checkpoint but itself; checkpoints of earlier
                        versions have none

A message names the file, the tensor where it is about one, and the newest older checkpoint of the run that is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.documents import read_object
from ...configs.pointers import why_unread
from ...configs.spec import Embodiment
from .links import CHECKPOINTS, numbered, step_of

if TYPE_CHECKING:
    from torch import Tensor, nn

DIGESTS, FORMAT = "digests.json", 1
TRAINING = "training_state"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which part and what to do."""


def write_digests(folder: Path) -> None:
    """Note the SHA-256 of every file in a checkpoint that is being written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / DIGESTS)
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    (folder / DIGESTS).write_text(json.dumps({"format": FORMAT, "sha256": hashes}, indent=1))


def verify(folder: Path, files: Iterable[str] | None = None) -> None:
    """Compare files of a checkpoint (default all) with their digests; one without digests passes.

    Raises:
        CheckpointError: a file that is missing, or not the one that was saved.
    """
    complaint = next(_unlike(folder, files), None)
    if complaint:
        raise damaged(folder, complaint)


def damaged(folder: Path, complaint: str) -> CheckpointError:
    """The error of a checkpoint that is not whole, with the way out."""
    older = older_whole(folder)
    if older is None:
        return CheckpointError(f"{complaint}. Bring a whole copy of {folder}; no older checkpoint beside it is whole")
    return CheckpointError(
        f"{complaint}. The newest older checkpoint that is whole is {older}: give it in place of the run, or go on "
        f"from it with: understudy train --resume {older}"
    )


def older_whole(folder: Path) -> Path | None:
    """The newest checkpoint of the same run that is older and whole."""
    folder, step = Path(folder), step_of(Path(folder))
    run = folder.parent.parent if folder.parent.name == CHECKPOINTS else folder.parent
    older = [path for path in numbered(run) if step is None or int(path.name) < step]
    return next((path for path in reversed(older) if next(problems(path), None) is None), None)


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a checkpoint of ours, a sentence each; weights are read, no model is built."""
    digests = (folder / DIGESTS).is_file()
    yield from _unlike(folder, None)
    for name in ("config.json", "embodiment.json"):
        try:
            read_object(folder / name, CheckpointError)
            if name == "embodiment.json":
                Embodiment.load(folder / name)
        except (OSError, ValueError) as error:
            yield f"{error}"
    files = [path for path in (folder / "model.safetensors", *sorted((folder / TRAINING).glob("*.safetensors")))]
    for file in files:
        if file.is_file() or (file == folder / "model.safetensors" and not (folder / "parents").is_dir()):
            try:
                check_finite(file, load_tensors(file))
            except CheckpointError as error:
                yield f"{error}"
    for file in sorted((folder / TRAINING).glob("*.json")) if not digests else ():
        try:
            read_object(file, CheckpointError)
        except (OSError, ValueError) as error:
            yield f"{error}"


def load_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError for one that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = why_unread(file, error)
        raise CheckpointError(f"{file} cannot be read ({reason}); the file is damaged or missing") from error


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError naming the first tensor with a NaN or an infinity, or a scale that is not positive."""
    for name, values in tensors.items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise CheckpointError(f"'{name}' in {file} holds NaN or infinity; the file is damaged")
        if name.endswith(".std") and "_scale" in name and not bool((values > 0).all()):
            raise CheckpointError(f"'{name}' in {file} is a scale and must be positive; the file is damaged")


def check_like(file: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless names, shapes and number types are those of `wanted` and all numbers are finite."""
    fit = f"{file} does not fit the network that its config describes"
    missing, strange = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or strange:
        which = f"'{missing[0]}' is missing" if missing else f"'{strange[0]}' is unknown"
        raise CheckpointError(f"{fit}: {which}")
    for name, values in tensors.items():
        shape, dtype = tuple(wanted[name].shape), wanted[name].dtype
        if tuple(values.shape) != shape:
            raise CheckpointError(f"{fit}: '{name}' has the shape {tuple(values.shape)} in place of {shape}")
        if values.dtype != dtype:
            raise CheckpointError(
                f"'{name}' in {file} holds {_short(values.dtype)} numbers in place of {_short(dtype)}"
            )
    check_finite(file, tensors)


def check_scales(file: Path, model: nn.Module) -> None:
    """Raises CheckpointError unless every scale of a loaded model has a positive factor."""
    from ..policy import Scale

    for name, module in model.named_modules():
        if isinstance(module, Scale) and not bool((module.std > 0).all()):
            raise CheckpointError(f"'{name}.std' in {file} is a scale and must be positive; the file is damaged")


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unlike(folder: Path, files: Iterable[str] | None) -> Iterator[str]:
    """A sentence for each of the files (None: all) that differs from its digest."""
    if not (folder / DIGESTS).is_file():
        return
    try:
        hashes = read_object(folder / DIGESTS, CheckpointError).get("sha256")
    except (OSError, CheckpointError) as error:
        yield f"{error}"
        return
    if not isinstance(hashes, dict):
        yield f"{folder / DIGESTS} holds no hashes; the file is damaged"
        return
    for name in sorted(hashes) if files is None else files:
        path = folder / name
        if name not in hashes:
            yield f"{path} has no hash in {folder / DIGESTS}; one of the two is damaged"
            continue
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield f"{folder / DIGESTS} names {name}, which lies outside; the file is damaged"
            continue
        try:
            found = sha256(path)
        except OSError as error:
            yield f"{path} cannot be read ({error.strerror}); it is damaged or missing"
            continue
        if found != hashes[name]:
            yield (
                f"{path} is not the file that was saved: its hash differs from the one in {folder / DIGESTS} (if you "
                "changed it on purpose, delete that file)"
            )


def _short(dtype) -> str:
    return str(dtype).removeprefix("torch.")
