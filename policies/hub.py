"""What lies on the hub of Hugging Face: fetched into its cache, under a name such as "lerobot/pusht" or "me/it@v2"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

OURS = ("runs", "out")  # folders that trainings and recordings go to: what begins so is a path
MODEL_FILES = ("*.json", "*.safetensors")  # of a policy; nothing that would have to be unpickled


class HubError(OSError):
    """What could not be fetched; the message says why and what to do."""


def is_hub_id(source: str | Path) -> bool:
    """Whether a source that is no path here may be a name on the hub: OWNER/NAME, where no folder OWNER lies here.

    `runs/NAME` and `out/NAME` are paths, whether there is such a folder or not.
    """
    found = re.fullmatch(r"([\w-][\w.-]*)/[\w.-]+(@[\w./-]+)?", str(source))
    if found is None or found[1] in OURS:
        return False
    return not Path(source).exists() and not Path(found[1]).exists()


@cache
def fetch_model(hub: str) -> Path:
    """The folder of a policy's files, of the revision behind `@`, else of the newest; once in a process.

    Raises:
        HubError: no network and nothing in the cache, no such name, or none that one may read.
    """
    name, _, revision = hub.partition("@")
    return fetch(name, "model", MODEL_FILES, revision or None)


def fetch(name: str, kind: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Download the files of `patterns` (kept in the hub's cache). Raises HubError when it cannot."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        path = huggingface_hub.snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns))
        return Path(path)
    except (OSError, HfHubHTTPError, HFValidationError, RuntimeError) as error:
        raise HubError(
            f"'{name}' is no folder here and could not be fetched from the hub ({_reason(error)});"
            " check the spelling and the network, or give the path of a local copy"
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return "no connection, and no earlier download"
    if isinstance(error, RepositoryNotFoundError):
        return "no such name there, or a private one"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def provenance_of(source: str | Path, folder: Path) -> dict:
    """What a manifest says of a policy that was fetched: its name and the revision's hash; {} of a local one."""
    if not is_hub_id(source) or "snapshots" not in folder.parts:
        return {}
    revision = folder.parts[folder.parts.index("snapshots") + 1]
    return {"hub": {"id": str(source).partition("@")[0], "revision": revision}}
