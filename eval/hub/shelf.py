"""Where things are shared: a repository of the hub of Hugging Face, or a folder that stands for one.

Beside the files lies `understudy.json`, what they are and the sha256 of each. In a folder it is written first, so that
a push that broke off is seen as such; on the hub all files come in one commit. Both go on where they broke off.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...configs.documents import read_object
from ...configs.files import replace_file, replace_text
from ...policies.hub import HubError, fetch
from ...policies.learning.integrity import sha256

INDEX, CARD = "understudy.json", "README.md"
FORMAT = 1
SCHEME = "hf://"
TYPES = {"policy": "model", "dataset": "dataset", "record": "dataset"}  # what is shared -> kind of repository
PLAIN = (".json", ".jsonl", ".safetensors", ".parquet", ".yaml", ".md", ".mp4", ".png", ".jpg", ".html", ".txt")
HARMFUL = {  # ending -> what it is
    ".py": "code", ".pkl": "a pickle", ".pickle": "a pickle", ".pt": "a pickle", ".pth": "a pickle", ".bin": "a pickle",
    ".ckpt": "a pickle", ".joblib": "a pickle", ".npy": "possibly a pickle", ".npz": "possibly a pickle",
    ".so": "code", ".sh": "code", ".ipynb": "code",
}  # fmt: skip


class SharedError(ValueError):
    """What cannot be shared or is not what was shared; the message names the file."""


@dataclass(frozen=True)
class Index:
    """What lies on a shelf."""

    kind: str  # policy | dataset | record
    files: Mapping[str, str]  # path -> sha256

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "kind": self.kind, "sha256": dict(sorted(self.files.items()))}, indent=1)

    @classmethod
    def read(cls, path: Path) -> Index:
        """Raises SharedError for a file that is damaged, of a newer version, or names places outside of the folder."""
        found = read_object(path, SharedError)
        files, form = found.get("sha256"), found.get("format")
        if type(form) is int and form > FORMAT:
            raise SharedError(f"{path} was written by a newer understudy (format {form}); upgrade to read it")
        if found.get("kind") not in TYPES or not isinstance(files, dict):
            raise SharedError(f"{path} does not say what lies there; push it again")
        for name, digest in files.items():
            if not inside(name) or not isinstance(digest, str):
                raise SharedError(f"{path} names '{name}', which is no file of its folder; do not trust it")
        return cls(found["kind"], files)


def inside(name: str) -> bool:
    """Whether a relative path stays in its folder."""
    path = Path(name)
    return bool(name) and "\\" not in name and not path.is_absolute() and ".." not in path.parts


def is_plain(name: str) -> bool:
    """Whether a file holds data that is read without running anything."""
    return Path(name).suffix.lower() in PLAIN and inside(name)


def index_of(folder: Path, kind: str) -> Index:
    """The files of a folder that is to be shared.

    Raises:
        SharedError: a file of another kind, or a link out of the folder, by name.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == INDEX:
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SharedError(f"{path} is a link out of {folder}; put the file itself there")
        if not is_plain(name):
            what = HARMFUL.get(path.suffix.lower(), "no file of a policy, a dataset or a record")
            raise SharedError(f"{path} is {what}; only data that is read without running anything is shared: remove it")
        files[name] = sha256(path)
    return Index(kind, files)


def check(folder: Path, index: Index) -> None:
    """Compare the files of a folder with their hashes. Raises SharedError naming the first that differs."""
    for name, digest in index.files.items():
        if not (folder / name).is_file():
            raise SharedError(f"'{name}' is missing in {folder}: the push of it did not end; push it again")
        if sha256(folder / name) != digest:
            raise SharedError(f"'{name}' in {folder} is not the file that was pushed (its sha256 differs)")


def put(staged: Path, to: str, kind: str, private: bool) -> str:
    """Share the files of a folder, which has a card; where they are now, in words.

    Raises:
        SharedError: what must not be shared, or another thing that lies there. HubError: no network, no permission.
    """
    index = index_of(staged, kind)
    if to.startswith(SCHEME):
        replace_text(staged / INDEX, index.to_json())
        return _upload(staged, to, TYPES[kind], private)
    shelf = Path(to).expanduser()
    if (shelf / INDEX).is_file() and (there := Index.read(shelf / INDEX).kind) != kind:
        raise SharedError(f"{shelf} holds a {there}, not a {kind}; choose another folder")
    if shelf.is_dir() and not (shelf / INDEX).is_file() and any(shelf.iterdir()):
        raise SharedError(f"{shelf} holds something that was not pushed; choose another folder")
    before = Index.read(shelf / INDEX).files if (shelf / INDEX).is_file() else {}
    replace_text(shelf / INDEX, index.to_json())
    moved = copy_new(staged, shelf, index)
    for name in before.keys() - index.files.keys():
        (shelf / name).unlink(missing_ok=True)
    return f"{shelf}: {len(index.files)} files, {moved} of them new"


def copy_new(source: Path, target: Path, index: Index) -> int:
    """Copy what is not there yet with its hash; how many files that were."""
    moved = 0
    for name, digest in index.files.items():
        there = target / name
        if there.is_file() and sha256(there) == digest:
            continue
        if not (source / name).is_file():
            raise SharedError(f"'{name}' is missing in {source}: the push of it did not end; push it again")
        replace_file(there, partial(shutil.copyfile, source / name))
        moved += 1
    return moved


def take(source: str, beside: Path, revision: str | None, code: bool) -> tuple[Index | None, list[str]]:
    """Bring what lies on a shelf to the folder `beside`, which is made; what it holds of the same files is kept.

    Args:
        code: bring files of other kinds too; nothing is run in any case.

    Returns:
        (index, files left out because they are not plain data). No index: somebody else's, without hashes.
    """
    if source.startswith(SCHEME):
        kind, name = repository(source)
        patterns = ["*"] if code else [f"*{ending}" for ending in PLAIN]
        held = fetch(name, kind, patterns, revision)
    else:
        held = Path(source).expanduser()
        if not held.is_dir():
            raise FileNotFoundError(f"there is no folder {held}; give one that was pushed to, or hf://OWNER/NAME")
    index = Index.read(held / INDEX) if (held / INDEX).is_file() else None
    names = list(index.files) if index else [p.relative_to(held).as_posix() for p in held.rglob("*") if p.is_file()]
    out = sorted(name for name in names if not is_plain(name) and not code)
    brought = {name: _digest(held, index, name) for name in names if name not in out}
    kept = Index(index.kind if index else "policy", brought)
    _clear_others(beside, kept)
    copy_new(held, beside, kept)
    check(beside, kept)
    if index:
        replace_text(beside / INDEX, kept.to_json())
    return index, out


def _clear_others(beside: Path, index: Index) -> None:
    """Make a folder, and remove the files that an earlier try left there of something else."""
    beside.mkdir(parents=True, exist_ok=True)
    for path in [*beside.rglob("*")]:
        if not path.is_dir() and path.relative_to(beside).as_posix() not in index.files:
            path.unlink()


def _digest(held: Path, index: Index | None, name: str) -> str:
    return index.files[name] if index else sha256(held / name)


def repository(source: str) -> tuple[str, str]:
    """(kind, OWNER/NAME) of hf://OWNER/NAME or hf://datasets/OWNER/NAME. Raises SharedError."""
    name = source.removeprefix(SCHEME).rstrip("/")
    kind = "dataset" if name.startswith("datasets/") else "model"
    name = name.removeprefix("datasets/")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise SharedError(f"'{source}' is no place on the hub: hf://OWNER/NAME, or hf://datasets/OWNER/NAME")
    return kind, name


def _upload(staged: Path, to: str, kind: str, private: bool) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    said, name = repository(to)
    if said != kind and to.startswith(SCHEME + "datasets/"):
        raise SharedError(f"{to} is a place of datasets, and this is a policy: hf://{name}")
    api: Any = huggingface_hub.HfApi()
    failures: Any = (OSError, HfHubHTTPError, HFValidationError, RuntimeError, *_unreachable())
    try:
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        done = api.upload_folder(folder_path=str(staged), repo_id=name, repo_type=kind)
    except failures as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HubError(
            f"{to} could not be written ({first}); check the network and `hf auth login`, or push to a folder"
        ) from error
    return f"{done}"


def _unreachable() -> tuple[type[Exception], ...]:
    """What the hub's client raises without a network; since its version 1 that is no OSError."""
    try:
        import httpx
    except ImportError:
        return ()
    return (httpx.HTTPError,)
