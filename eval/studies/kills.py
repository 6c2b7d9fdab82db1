"""What survives `kill -9`: verbs killed at random moments and at every file operation, then gone on with.

    understudy study kills --out OUT.json

Each trial runs a small command of one verb in a fork of this process, which has imported everything already, and kills
it: after a random time, or just before its k-th file operation (files opened to be written, renames, folders made,
removals), which an audit hook counts. A trial lives in a session of its own, so that processes that outlive it are
found. Then the same command goes on (`--resume`; where it refuses, from the beginning), and its folder is compared with
that of an undisturbed run: weights and films by their bytes, records by all columns that are not times, texts without
times.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ...configs.machine import prepare
from ...configs.plugins import discover, lookup
from ..ledger.record import MANIFEST, TABLE, read_record
from ..ledger.study import Study
from ..ledger.table import without_incidental
from ._processes import outliving

COMMANDS = ("train", "eval", "eval with workers", "demos", "demos of a policy", "compare", "compose", "run")
EVENTS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate")  # of Python's audit hooks
LIMIT = 300.0  # s a command may take
TIMED = (
    "rate",
    "seconds",
    "wall",
    "acted",
    "begun",
    "digests",
    "sha256",
    "code",
    "out",
    "resume",
)  # keys of JSON files that tell of time, of a checkout that changes meanwhile, or of how the command was gone on with
DIGESTS, CLOCKED = "digests.json", "progress.json"  # of a checkpoint; the progress holds seconds
UNCOMPARED = re.compile(r"(^|/)(tb/.*|.*\.log|\.pid|\.lock|.*\.html)$")  # only whether they are there
TRAINING = """
policy:
  type: {kind}
  needs: [observation.state, observation.environment_state]
  window: {{observe: [-1, 0], horizon: 8}}
  network: {{type: mlp, width: 16, depth: 1, expand: 2, condition_width: 8}}
batch: 32
steps: 20
save_every: 10
validate_every: 10
log_every: 5
threads: 1
device: cpu
"""
GRID = """
name: kills
out: {out}
train: {{config: {work}/diffusion.yaml, set: {{data: {work}/data}}}}
eval: {{short: {{config: {{world: point, episodes: 4, videos: 0}}}}}}
seeds: [0]
"""
COLUMNS = ("command", "killed at", "kills", "gone on", "equal", "rows lost", "orphans", "leftovers")
NOTES = (
    "Equal: every file of the folder is that of an undisturbed run, but for times, logs and drawn pages",
    "Rows lost: episodes that were recorded when the kill came and were not kept as they were",
    "Orphans: processes of the command that lived longer than 15 s after it",
    "Leftovers: files that an undisturbed run does not leave",
    "File operations: opening to write, renames, folders made, removals, by Python; at most as many as asked for",
)


@dataclass(frozen=True, kw_only=True)
class KillStudy:
    """Kill verbs and go on with them: what is equal, lost, orphaned or left over."""

    commands: tuple[str, ...] = COMMANDS  # which of them
    moments: int = 20  # kills of each command at random moments
    operations: int = 0  # most kills of each command at file operations; 0: at every one
    seed: int = 0  # of the moments
    work: Path | None = None  # folder for the trials, must not exist; default a temporary one
    out: Path  # file of the study

    def run(self) -> None:
        for name in self.commands:
            lookup("command", name, dict.fromkeys(COMMANDS))
        if not sys.platform.startswith("linux"):
            raise OSError("this study counts processes in /proc, which only Linux has")
        work = Path(tempfile.mkdtemp(prefix="kills_")) if self.work is None else self.work.absolute()
        work.mkdir(parents=True, exist_ok=self.work is None)
        try:
            study = kills(self, work)
        finally:
            if self.work is None:
                shutil.rmtree(work, ignore_errors=True)
        print(study.markdown())
        print(study.write(self.out))


@dataclass(frozen=True)
class Command:
    """A command under trial: its words, and those that go on with it, tried in turn."""

    name: str
    words: Sequence[object]
    again: Sequence[Sequence[object]]


@dataclass
class Counts:
    """What became of the kills of one command."""

    kills: int = 0
    gone_on: int = 0
    equal: int = 0
    lost: int = 0
    orphans: int = 0
    leftovers: int = 0
    said: list[str] = field(default_factory=list)


def kills(settings: KillStudy, work: Path) -> Study:
    """The study: a row for each command at random moments, and one at file operations."""
    _warm()
    _ingredients(work)
    rows, notes = [], []
    for name in settings.commands:
        trials = Trials(_command(name, work), work, random.Random(f"{settings.seed} {name}"))
        for where, counts in (
            ("random moments", trials.at_moments(settings.moments)),
            (None, trials.at_operations(settings.operations)),
        ):
            place = where or f"file operations ({trials.operations})"
            found = counts.kills, counts.gone_on, counts.equal, counts.lost, counts.orphans, counts.leftovers
            rows.append((name, place, *found))
            print(f"{name}, {place}: " + ", ".join(f"{n} {c}" for n, c in zip(COLUMNS[2:], found, strict=True)))
            notes += counts.said
            for line in counts.said:
                print(f"  {line}", flush=True)
    command = f"understudy study kills --moments {settings.moments} --operations {settings.operations} --out FILE.json"
    return Study(title="Killed and gone on", command=command, columns=COLUMNS, rows=rows, notes=(*NOTES, *notes[:20]))


class Trials:
    """Kills one command again and again, always in the same folder, since paths are part of what is written."""

    def __init__(self, command: Command, work: Path, rng: random.Random):
        self.command, self.work, self.folder, self.rng = command, work, work / "x", rng
        self.operations = 0  # of the undisturbed command
        log = work / "count"
        self._clean()
        modules = work / "modules"
        status = _finish(_fork(command.words, work / "log", _struck(self.folder, 0, log), modules))
        if status:
            raise RuntimeError(f"{command.name} fails undisturbed: {(work / 'log').read_text()[-500:]}")
        self.operations = len(log.read_text().splitlines())
        self.names = log.read_text().splitlines()
        self.whole = _ask(_content, self.folder)
        _import(modules.read_text().split())

        # how long it takes where nothing is imported any more
        self._clean()
        began = time.monotonic()
        _finish(_fork(command.words, work / "log"))
        self.seconds = time.monotonic() - began

    def at_moments(self, count: int) -> Counts:
        """Kill after random times; those that come too late are tried again."""
        counts = Counts()
        for _ in range(2 * count):
            if counts.kills == count:
                break
            after = self.rng.uniform(0, self.seconds)
            self._clean()
            pid = _fork(self.command.words, self.work / "log")
            time.sleep(after)
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._judge(pid, counts, f"{self.command.name} after {after:.2f} s")
        return counts

    def at_operations(self, most: int) -> Counts:
        """Kill just before file operations."""
        counts, total = Counts(), self.operations
        chosen: Sequence[int] = range(1, total + 1)
        if 0 < most < total:
            chosen = sorted({1 + round(k * (total - 1) / max(most - 1, 1)) for k in range(most)})
        for number in chosen:
            self._clean()
            pid = _fork(self.command.words, self.work / "log", _struck(self.folder, number, self.work / "count"))
            if _finish(pid) == -signal.SIGKILL:
                self._judge(pid, counts, f"{self.command.name} at {self.names[number - 1]}")
        return counts

    def _judge(self, pid: int, counts: Counts, where: str) -> None:
        """Wait for what lives, go on, and compare."""
        counts.kills += 1
        orphans = outliving(pid)
        counts.orphans += orphans
        kept = _ask(_kept, self.folder)

        status, said = 1, ""
        for words in self.command.again:
            status = _finish(_fork(words, self.work / "log"))
            said = (self.work / "log").read_text(errors="replace")
            if status == 0:
                break
        if status:
            counts.said.append(f"{where}: status {status}: {' '.join(said.split())[-200:]}")
            return

        counts.gone_on += 1
        content, after = _ask(_content, self.folder), _ask(_kept, self.folder)
        extra = [name for name in content if name not in self.whole] + _beside(self.folder)
        other = [name for name in self.whole if content.get(name) != self.whole[name]]
        lost = [name for name, mark in kept.items() if after.get(name) != mark]
        counts.equal += not other
        counts.lost += len(lost)
        counts.leftovers += len(extra)
        wrong = {"orphans": orphans, "other": other[:3], "lost": lost[:3], "left": extra[:3]}
        if any(wrong.values()):
            counts.said.append(f"{where}: " + ", ".join(f"{name} {what}" for name, what in wrong.items() if what))

    def _clean(self) -> None:
        for path in (self.folder, *(self.work / name for name in _beside(self.folder))):
            shutil.rmtree(path, ignore_errors=True)
        (self.work / "count").unlink(missing_ok=True)


def _command(name: str, work: Path) -> Command:
    out, data, a, b = work / "x", work / "data", work / "a", work / "b"
    many = {
        "train": ["train", work / "diffusion.yaml", "--data", data],
        "eval": ["eval", "--policy", a, "--world", "point", "--episodes", 8, "--block", 4, "--videos", 2],
        "demos": ["demos", "point", "--episodes", 6, "--block", 3, "--noise", 0.1],
        "compare": [
            *("compare", a, b, "--world", "point", "--until_decided", "true", "--max", 8, "--block", 4),
            *("--give_up", 0, "--videos", 2),
        ],
        "compose": [
            *("compose", a, b, "--world", "point", "--search", "grid", "--points", 3, "--episodes", 4, "--block", 4),
            *("--report", 4),
        ],
        "run": ["run", work / "grid.yaml"],
    }  # fmt: skip
    many["eval with workers"] = [*many["eval"], "--workers", 2]
    many["demos of a policy"] = [*many["demos"], "--policy", a, "--keep_failures", "true"]
    words = many[name]
    if name == "run":
        return Command(name, words, (words,))
    resume = ["train", "--resume", out] if name == "train" else [*words, "--resume", out]
    if name.startswith("demos"):
        resume = [*words, "--out", out, "--resume", "true"]
    return Command(name, [*words, "--out", out], (resume, [*words, "--out", out]))


def _ingredients(work: Path) -> None:
    """Demonstrations, two policies, configs."""
    (work / "grid.yaml").write_text(GRID.format(out=work / "x", work=work))
    commands = [["demos", "point", "--episodes", 6, "--out", work / "data"]]
    for kind, name in (("diffusion", "a"), ("flow", "b")):
        (work / f"{kind}.yaml").write_text(TRAINING.format(kind=kind))
        commands.append(["train", work / f"{kind}.yaml", "--data", work / "data", "--out", work / name])
    for words in commands:
        if _finish(_fork(words, work / "log")):
            raise RuntimeError(f"{words[0]} failed: {(work / 'log').read_text()[-500:]}")


def _warm() -> None:
    """Import all that the commands need, so that a fork begins at once."""
    prepare()
    import torch

    torch.set_num_threads(1)
    for name in ("accelerate", "av", "jinja2", "pyarrow.parquet", "safetensors.torch"):
        import_module(name)
    for module, _ in (entry for name, entry in _line().VERBS.items() if name in {c.split()[0] for c in COMMANDS}):
        import_module(f"{_package()}.{module.partition(':')[0]}")
    discover("policies", "sim")


def _import(names: Sequence[str]) -> None:
    """Import what a command imported, so that its next fork need not."""
    for name in names:
        with suppress(Exception):  # made by its parent, as some are; it is only slower then
            import_module(name)


def _package() -> str:
    return (__package__ or "").partition(".")[0]


def _line():
    """The command line, as users meet it; it stands above every folder, hence by name."""
    return import_module(f"{_package()}.__main__")


def _fork(
    words: Sequence[object], log: Path, first: Callable[[], None] | None = None, modules: Path | None = None
) -> int:
    """Run a command in a fork, in a session of its own, and return its process id.

    Args:
        log: takes its output.
        first: called in it before.
        modules: file that takes the names of all modules that it has imported in the end.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
        if first is not None:
            first()
        status = _line().main([str(word) for word in words])
        if modules is not None:
            modules.write_text("\n".join(name for name in sys.modules if name != "__main__"))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _finish(pid: int) -> int:
    """Wait for a fork. Returns its exit status, minus the signal that ended it."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a command did not end within {LIMIT:g} s")


def _struck(folder: Path, number: int, log: Path) -> Callable[[], None]:
    """For a fork: count file operations in `folder` and beside it, and kill just before the one of this number."""

    def arm() -> None:
        pid, count = os.getpid(), 0
        inside, beside = str(folder), str(folder.with_name(f".{folder.name}."))
        lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def hook(event: str, args: tuple) -> None:
            nonlocal count
            if event not in EVENTS and not (event == "open" and _writes(args)) or os.getpid() != pid:
                return
            paths = [os.path.abspath(os.fsdecode(a)) for a in args[:2] if isinstance(a, (str, bytes, os.PathLike))]
            if not any(path == inside or path.startswith((f"{inside}/", beside)) for path in paths):
                return
            count += 1
            os.write(lines, f"{event} {' '.join(path.removeprefix(inside) for path in paths)}\n".encode())
            if count == number:
                os.kill(pid, signal.SIGKILL)

        sys.addaudithook(hook)

    return arm


def _writes(args: tuple) -> bool:
    _, mode, flags = (*args, None, None, None)[:3]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _ask(what: Callable[[Path], dict], folder: Path) -> dict:
    """`what(folder)` from a fork: this process stays without threads of libraries, which forks do not survive."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with os.fdopen(write, "w") as pipe:
                json.dump(what(folder), pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def _beside(folder: Path) -> list[str]:
    """Names of what was left half written beside a folder."""
    return [path.name for path in folder.parent.glob(f".{folder.name}.*")]


def _content(folder: Path) -> dict[str, str]:
    """File below the folder -> digest of what must be equal in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: "" if UNCOMPARED.search(name) else _digest(path)
        for name, path in names.items()
        if not name.partition("tb/")[1]
    }


def _digest(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    if path.name == TABLE:
        table: Any = read_record(path.parent).table
        rows = without_incidental(table).to_pylist()
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if path.name == DIGESTS:
        digests = json.loads(path.read_text())["sha256"]
        return json.dumps({name: value for name, value in digests.items() if not name.endswith(CLOCKED)})
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        values = [_timeless(json.loads(line)) for line in (text.splitlines() if path.suffix == ".jsonl" else (text,))]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in TIMED and "wall" not in key}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _kept(folder: Path) -> dict[str, str]:
    """What is recorded already, with a mark that it would not have if it were done again."""
    marks: dict[str, str] = {}
    for manifest in sorted(folder.rglob(MANIFEST)):
        try:
            record = read_record(manifest.parent)
        except (OSError, ValueError):
            continue  # nothing is recorded there
        walls = zip(record.column("env_seed"), record.column("wall_physics"), strict=True)
        marks |= {f"{manifest.parent.relative_to(folder)} {start}": repr(wall) for start, wall in walls}
    for info in folder.rglob("meta/info.json"):
        episodes = json.loads(info.read_text())["total_episodes"]
        files = sorted((info.parents[1] / "data").rglob("file-*.parquet"))[:episodes]
        marks |= {str(file.relative_to(folder)): str(file.stat().st_ino) for file in files}
    return marks
