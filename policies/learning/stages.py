"""Training in stages from one file, each a run of its own: an encoder with a short context, then a long one on it.

    out: runs/memory
    data: ...                      # what stages share
    stages:
      encoder: {steps: 4000, policy: {...}}
      head: {steps: 8000, policy: {vision: {init: stage:encoder, frozen: true}, ...}}

`runs/memory/encoder` and `runs/memory/head` are ordinary runs; the last one acts. A stage's own keys replace the
shared ones, settings of settings included; `stage:NAME` in a value is the run of an earlier stage. The same command
goes on where it was stopped. Three stages of past-token prediction (arXiv 2505.09561) are such a file: encoder,
embeddings (kept by the second run as it begins), long context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ...configs.files import replace_text
from ...configs.settings.load import load
from ...configs.settings.refusals import UsageError
from .links import linked, numbered, step_of

STAGES, STAGE = "stages", "stage:"


@dataclass(frozen=True)
class Staged:
    """A training of several stages.

    Args:
        out: folder of the runs.
        stages: name -> keys of a training, in order.
        words: flags that hold for every stage.
        train: (config file, words) -> None, trains one stage from its beginning.
        resume: run -> None, goes on with one.
    """

    out: Path
    stages: Mapping[str, Mapping]
    words: tuple[str, ...]
    train: Callable[[str, list[str]], None]
    resume: Callable[[Path], None]

    def run(self) -> None:
        """Train what is not trained yet.

        Raises:
            UsageError: a stage that was begun with other settings.
        """
        self.check_begun()
        for number, (name, keys) in enumerate(self.stages.items(), 1):
            run, where = self.out / name, f"stage {number} of {len(self.stages)}, {name}"
            last = linked(run, "last")
            if last is not None and (step_of(last) or 0) >= int(keys.get("steps", 0)):
                print(f"{where}: trained already, {last}")
                continue
            print(where)
            try:
                self._advance(name, run)
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt(f"{stop or 'stopped'}. The same command goes on with all stages") from stop
        print(f"what acts: {self.last}")

    @property
    def last(self) -> Path:
        """The run of the last stage, which acts."""
        return self.out / [*self.stages][-1]

    def _advance(self, name: str, run: Path) -> None:
        if numbered(run):
            self.resume(run)
            return
        file = self._file(name)
        self.out.mkdir(parents=True, exist_ok=True)
        replace_text(file, self._text(name))
        self.train(str(file), [*self.words, f"--out={run}"])

    def check(self, check: Callable[[str, list[str]], object]) -> None:
        """Let `check` look at each stage before any is trained: it is called with a file of its keys, and the words.

        Raises:
            UsageError: what `check` refuses, naming the stage.
        """
        with TemporaryDirectory() as folder:
            for name in self.stages:
                file = Path(folder) / f"{name}.yaml"
                file.write_text(self._text(name))
                try:
                    check(str(file), [*self.words, f"--out={self.out / name}"])
                except (ValueError, OSError) as error:
                    said = str(error).removeprefix(f"{file}: ")
                    raise UsageError(f"stage {name}: {said}") from error.__cause__

    def is_of_stage(self, path: str | None) -> bool:
        """Whether a path is the run of one of the stages, which need not be there yet."""
        return path is not None and Path(path) in [self.out / name for name in self.stages]

    def check_begun(self) -> None:
        """Raise UsageError where a stage was begun with other settings."""
        for name in self.stages:
            file = self._file(name)
            if file.is_file() and file.read_text() != self._text(name):
                raise UsageError(
                    f"stage {name} in {self.out} was begun with other settings, see {file}; give another --out, or "
                    f"bring the settings back"
                )

    def _file(self, name: str) -> Path:
        return self.out / f"{name}.yaml"

    def _text(self, name: str) -> str:
        words = "".join(f"# {word}\n" for word in self.words)
        return words + yaml.safe_dump(_plain(self.stages[name]), sort_keys=False)


def _none(*_: object) -> None:
    """Trains nothing."""


def staged(path: str, words: list[str], train: Callable = _none, resume: Callable = _none) -> Staged | None:
    """The stages that a config file describes; None of a file without. See `Staged` for `train` and `resume`.

    Raises:
        UsageError: no stages, no `out`, or one that names a stage that is not before it.
    """
    raw = load(path)
    if STAGES not in raw:
        return None
    out, rest = _take_out(words)
    stages, shared = raw[STAGES], {key: value for key, value in raw.items() if key not in (STAGES, "out")}
    if not isinstance(stages, dict) or not stages or not all(isinstance(keys, dict) for keys in stages.values()):
        raise UsageError(f"{path}: `stages` must hold names and what is trained, such as encoder: {{steps: 1000}}")
    folder = Path(out or raw.get("out") or Path("runs") / Path(path).stem)
    merged: dict[str, dict] = {}
    for name, keys in stages.items():
        merged[name] = _resolved(_over(shared, keys), folder, tuple(merged), f"{path}: stage {name}")
    return Staged(folder, merged, tuple(rest), train, resume)


def _take_out(words: list[str]) -> tuple[str | None, list[str]]:
    """The value of --out, and the words without it."""
    rest, out = [], None
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--out" and queue:
            out = queue.pop(0)
        elif word.startswith("--out="):
            out = word.partition("=")[2]
        else:
            rest.append(word)
    return out, rest


def _over(shared: Any, own: Any) -> Any:
    """`own` over `shared`, mapping by mapping; another `type` replaces the whole mapping."""
    if not isinstance(shared, dict) or not isinstance(own, dict):
        return own
    if "type" in own and own["type"] != shared.get("type", own["type"]):
        return own
    return {**shared, **{key: _over(shared.get(key), value) for key, value in own.items()}}


def _resolved(value: Any, folder: Path, before: tuple[str, ...], where: str) -> Any:
    """A value with `stage:NAME` as the run of that stage."""
    if isinstance(value, dict):
        return {key: _resolved(one, folder, before, where) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one, folder, before, where) for one in value]
    if isinstance(value, str) and value.startswith(STAGE):
        name = value.removeprefix(STAGE)
        if name not in before:
            raise UsageError(f"{where} takes '{value}', which is no earlier stage ({', '.join(before) or 'none'})")
        return str(folder / name)
    return value


def _plain(value: Any) -> Any:
    """What a YAML file may hold, without types of its reader."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, type(None))) else str(value)
