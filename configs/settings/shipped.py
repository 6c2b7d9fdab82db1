"""Where a config lies: at a path, or among those that came with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..former import current_path


def is_config(word: str) -> bool:
    """Whether a first word of a command is its config; `--world=FILE.yaml` is a flag."""
    return word.endswith((".yaml", ".yml")) and not word.startswith("-")


def find_config(path: str | Path) -> Path:
    """The file at `path`; `configs/...` that is not in this folder is the one that came with the package.

    Raises:
        FileNotFoundError: naming the configs that came with the package.
    """
    shipped = Path(__file__).parents[1]
    named = Path(path) if Path(path).exists() else Path(current_path(str(path)))
    ours = shipped.parent / named if named.parts[:1] == ("configs",) else named
    for candidate in (named, ours):
        if candidate.is_file():
            return candidate

    close = close_configs(str(path))
    folder = named.parent.name if (shipped / named.parent.name).is_dir() and named.parent.name else ""
    beside = [name for name in shipped_configs() if name.startswith(f"configs/{folder}/")]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    known = f" Shipped: {', '.join(beside)}." if beside else ""
    raise FileNotFoundError(f"no config '{path}'.{hint}{known} 'understudy list configs' shows all that are shipped")


def shipped_configs() -> list[str]:
    """The configs that came with the package, as a command takes them: configs/FOLDER/NAME.yaml."""
    shipped = Path(__file__).parents[1]
    return sorted(f"configs/{file.relative_to(shipped)}" for file in shipped.glob("*/*.yaml"))


def close_configs(word: str) -> list[str]:
    """Shipped configs that a word may mean, best first: it may lack its folder or its `.yaml`; three at most."""
    names, wanted = shipped_configs(), word.removesuffix(".yml").removesuffix(".yaml")
    stems = {name: name.removesuffix(".yaml") for name in names}
    exact = [name for name, stem in stems.items() if stem.endswith(f"/{wanted.lstrip('./')}")]
    if exact:
        return exact[:3]
    whole = difflib.get_close_matches(wanted, stems.values(), 1, 0.8)
    return [f"{stem}.yaml" for stem in whole]
