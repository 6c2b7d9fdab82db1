"""Whether a reader can make a record from public data: every file that its command uses has a command that makes it.

`chains.yaml` in the folder of records says what is public and, for each artefact (a run, a dataset, a folder of
results), the command that makes it. A path below an artefact is made with it. What a record itself says of how its
pieces were made (`made.py`) counts, too. `uncommitted` lists the records of code with uncommitted changes; it may only
shrink.

    public: [lerobot/pusht]
    made: {out/demos: understudy demos point --out out/demos, runs/a: understudy train --data out/demos --out runs/a}
    rebuilt: {runs/old: how far the command is known}
    uncommitted: [walk/old]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...configs.documents import check_fields

FILE = "chains.yaml"
MADE = "made"  # of a manifest: artefact -> the command that makes it
CODE = Path(__file__).resolve().parents[2]  # where `configs/...` of a command lie
ARTEFACT = re.compile(r"(?<![\w./~$-])(?:out|runs)/[\w./\[\]?*-]*[\w\]*?]|(?<![\w./~$<>:-])/[\w.-]+/[\w./-]*\w")
OUTPUT = re.compile(r"--(?:out|record|records|keep|resume|output_dir)(?:=|\s+)\S+")
CONFIG = re.compile(r"configs/[\w/.-]+\.yaml")


class ChainError(ValueError):
    """A record that nobody else can make; the message names it and the piece that is missing."""


@dataclass(frozen=True)
class Chains:
    """How what records use is made. The fields are the keys of `chains.yaml`."""

    public: tuple[str, ...] = ()  # what anybody can have: ids of a hub, folders of published data
    made: Mapping[str, str] = field(default_factory=dict)  # artefact -> command, or several, a line each
    rebuilt: Mapping[str, str] = field(default_factory=dict)  # artefact -> what of its command was not kept
    uncommitted: tuple[str, ...] = ()  # records of code with uncommitted changes, by their path in the folder

    def with_own(self, made: object) -> Chains:
        """With the commands that a record brings along; those of the file come first."""
        own = {str(name): str(command) for name, command in made.items()} if isinstance(made, Mapping) else {}
        return replace(self, made={**own, **self.made})

    def maker(self, path: str) -> str | None:
        """The artefact that a path is, or lies in."""
        return next((name for name in self.made if path == name or path.startswith(f"{name}/")), None)


def read_chains(root: Path) -> Chains:
    """`chains.yaml` of a folder of records; empty where there is none.

    Raises:
        ChainError: no such file of ours.
    """
    import yaml

    path = root / FILE
    if not path.is_file():
        return Chains()
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise ChainError(f"{path} is no YAML: {' '.join(str(cause).split())}") from cause
    if not isinstance(values, dict):
        raise ChainError(f"{path} must hold keys and values")
    check_fields(Chains, values, path, ChainError)
    return Chains(**values)


def used(command: str) -> list[str]:
    """The artefacts that a command reads: paths under out/ and runs/, and absolute ones, but for what it writes."""
    written = {path for words in OUTPUT.findall(command) for path in ARTEFACT.findall(words)}
    return [path for path in dict.fromkeys(ARTEFACT.findall(OUTPUT.sub(" ", command))) if path not in written]


def used_by_policy(manifest: Mapping) -> list[str]:
    """The artefacts that an episode record names: who acted, what it learned from, which critic chose."""
    policy, agent = (manifest.get(part) or {} for part in ("policy", "agent"))
    data = str((policy.get("train") or {}).get("data") or "")
    alarm = (agent.get("alarm") or {}).get("path") if isinstance(agent.get("alarm"), Mapping) else ""
    texts = [policy.get("path"), agent.get("critic"), alarm, json.dumps((policy.get("config") or {}).get("parents"))]
    found = [path for text in texts for path in ARTEFACT.findall(str(text or ""))]
    return list(dict.fromkeys([*found, *(part.strip() for part in data.split(",") if part.strip())]))


def missing(chains: Chains, paths: list[str], code: Path = CODE) -> Iterator[str]:
    """The pieces that no command makes, down to public data, with who asks for each."""
    waiting, seen = [(path, "") for path in paths], set()
    while waiting:
        path, asker = waiting.pop()
        if path in seen or any(path == name or path.startswith(f"{name}/") for name in chains.public):
            continue
        seen.add(path)
        name = chains.maker(path)
        if name is None:
            yield f"'{path}'{asker} is made by no command"
        elif name not in seen or name == path:
            seen.add(name)
            command = chains.made[name]
            waiting += [(each, f", which '{name}' needs,") for each in used(command) if chains.maker(each) != name]
            for config in CONFIG.findall(command):
                waiting += [(each, f", which {config} names,") for each in used_by_config(config, code)]
                if not (code / config).is_file():
                    yield f"'{config}', which '{name}' needs, is not in the repository"


def used_by_config(config: str, code: Path = CODE) -> list[str]:
    """The artefacts that a YAML file of ours reads, and those of the files that it names."""
    path = code / config
    if not path.is_file():
        return []
    lines = [line.partition("#")[0] for line in path.read_text().splitlines()]
    text = "\n".join(line for line in lines if not re.match(r"\s*(out|output_dir|job_name|policy):", line))
    inner = [each for other in CONFIG.findall(text) if other != config for each in used_by_config(other, code)]
    return [*ARTEFACT.findall(text), *inner]


def check_chain(chains: Chains, name: str, paths: list[str], code: Path = CODE) -> None:
    """Refuse a record whose chain of commands lacks a piece.

    Raises:
        ChainError: the record and the first piece.
    """
    lacking = next(missing(chains, paths, code), None)
    if lacking:
        raise ChainError(f"{name} cannot be made again: {lacking}. Add it to {FILE} under `made`, or to `public`")


def check_committed(chains: Chains, changed: Mapping[str, bool]) -> None:
    """Refuse a new record of code with uncommitted changes, and a list that names one that is not.

    Args:
        changed: record -> whether its code had uncommitted changes.

    Raises:
        ChainError: the first such record.
    """
    new = sorted(name for name, was in changed.items() if was and name not in chains.uncommitted)
    if new:
        raise ChainError(f"{new[0]} is from code with uncommitted changes (`+`): commit, then make it again")
    gone = sorted(name for name in chains.uncommitted if not changed.get(name))
    if gone:
        raise ChainError(f"{FILE} lists '{gone[0]}' as uncommitted, which it is not: take it out of the list")
