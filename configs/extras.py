"""The command that installs what an extra of ours brings, for messages that ask for it."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "understudy"


def pip_install(extra: str) -> str:
    """`pip install ...` of an extra, from where this understudy came: a clone, a folder, a repository or an index."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "pyproject.toml").is_file():
        return f"pip install -e '{clone}[{extra}]'"
    return f"pip install '{_source(extra)}'"


def _source(extra: str) -> str:
    """What pip was told to install (PEP 610), with the extra."""
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = origin.get("url", "")
    if "vcs_info" in origin:
        return f"{NAME}[{extra}] @ {origin['vcs_info']['vcs']}+{url}"
    if url.startswith("file:") and Path(url2pathname(urlsplit(url).path)).is_dir():
        return f"{url2pathname(urlsplit(url).path)}[{extra}]"
    return f"{NAME}[{extra}]"
