"""What of a training can be refused by names and paths alone, before torch is imported."""

from __future__ import annotations

import importlib.util
import netrc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from ...configs.devices import check_device
from ...configs.extras import pip_install
from ...configs.settings.shipped import find_config
from ...configs.spec import IMAGES
from ..data.layout import DatasetError, expand_path, read_info
from ..hub import is_hub_id
from .settings import Settings


def check_names(settings: Settings) -> None:
    """Refuse paths and names that are not there.

    Raises:
        ValueError, FileNotFoundError: naming the flag and what would do.
    """
    check_device(settings.device)
    for name in ("init", "embodiment"):
        value = getattr(settings, name)
        path = None if value is None else expand_path(value)
        if path is not None and not path.exists() and not is_hub_id(str(value)):
            raise FileNotFoundError(f"--{name} {value}: there is no such {'run' if name == 'init' else 'file'}")
    if settings.eval is not None:
        find_config(os.path.expandvars(settings.eval))
    for source in filter(None, settings.data.split(",")):
        check_data(source)
    if settings.wandb:
        check_wandb()


def check_data(source: str) -> None:
    """Raise DatasetError where a source is neither a folder nor may be a name on the hub."""
    path = expand_path(source)
    if path.exists() or is_hub_id(source):
        return
    raise DatasetError(
        f"--data {source}: there is no such folder; give a folder of a LeRobot dataset (understudy demos writes one), "
        "or a name on the hub, such as lerobot/pusht"
    )


def check_cameras(settings: Settings, inputs: Sequence[str]) -> None:
    """Raise DatasetError where a dataset that lies here has none of the cameras that are to be read."""
    for source in filter(None, settings.data.split(",")):
        root = expand_path(source)
        if not (root / "meta" / "info.json").is_file():
            continue
        there = read_info(root)["features"]
        for key in inputs:
            if str(key).startswith(IMAGES) and key not in there and key not in settings.columns:
                cameras = ", ".join(name.removeprefix(IMAGES) for name in there if name.startswith(IMAGES)) or "none"
                raise DatasetError(
                    f"{root} has no camera '{key.removeprefix(IMAGES)}'; its cameras: {cameras}. Name one or leave "
                    "pictures out"
                )


def check_wandb() -> None:
    """Raise ValueError where Weights & Biases would ask who one is, and nobody can answer."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(f"--wandb: the package is not installed; {pip_install('log')}, or leave it out")
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _is_offline():
        return
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    if not _has_login(host) and not (sys.stdin and sys.stdin.isatty()):
        raise ValueError(
            "--wandb: nobody is logged in to Weights & Biases here; run `wandb login` first, or set WANDB_API_KEY, or "
            "WANDB_MODE=offline to keep the log in the run folder"
        )


def _is_offline() -> bool:
    return os.environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun", "shared") or any(
        "mode = offline" in file.read_text() or "mode = disabled" in file.read_text()
        for file in (Path("wandb/settings"), Path.home() / ".config" / "wandb" / "settings")
        if file.is_file()
    )


def _has_login(host: str) -> bool:
    given = os.environ.get("NETRC")
    for file in (Path(given).expanduser(),) if given else (Path.home() / ".netrc", Path.home() / "_netrc"):
        try:
            if file.is_file() and netrc.netrc(str(file)).authenticators(host):
                return True
        except (netrc.NetrcParseError, OSError):
            return True  # what it holds is for its own client to say
    return False
