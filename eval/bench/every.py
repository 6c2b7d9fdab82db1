"""`understudy bench all`: every bench that can run on this machine, each in a process of its own, one after the other.

    out/bench/NAME.json            what `understudy bench ... --out` writes, and what other work took meanwhile
    out/bench/NAME.log             what it printed
    out/bench/records/NAME.json    the same as a study, for eval/records/bench
    out/bench/records/all.json     all ratios in one table, with the targets and what was not measured, and why

What is there, of the same code, versions and machine, is not measured again; what fails or hangs is said, and the
others go on; what needs something that is not here (a GPU, an extra) says so. Nothing is measured while other work
keeps the machine busy, unless asked for.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...configs.children import last_line, start, stop
from ...configs.command import command_of
from ...configs.ends import UNHEARD, listening
from ...configs.files import replace_text
from ...configs.owner import InUseError, owned
from ...configs.parse import parse
from ..ledger.provenance import provenance
from ..ledger.study import Study
from .headlines import HEADLINES, reached
from .quiet import MOST, check_quiet, others_while
from .settings import Settings, describe_machine
from .tables import TABLES, bench_study, machine_of

LONGEST = 1800.0  # s that a bench may take
RECORDS, ALL = "records", "all"
COLUMNS = ("bench", "what", "beside", "times as fast", "target, at least", "reached", "other work, cores")


class BenchError(ValueError):
    """Benches that did not come to their end; the message names them and says why."""


@dataclass(frozen=True)
class Planned:
    """One bench of all."""

    name: str
    words: str  # after `understudy bench`
    quick: str  # more words for a small run
    needs: Mapping[str, str]  # module -> how to install it
    gpu: bool = False
    detached: bool = False  # its processes leave the family, as a cluster's do: nobody can tell theirs from others


LEROBOT = {"lerobot": "pip install 'understudy[lerobot]'"}
ROBOSUITE = {"robosuite": "pip install 'understudy[sim]'"}
PUSHT = {"gym_pusht": "pip install 'understudy[sim]'"}
SERVE = {"websockets": "pip install 'understudy[serve]'", "grpc": "pip install 'lerobot[async]'"}
SHORT = "--pairs 3 --seconds 0.1"
PLAN = (
    Planned("loader", "loader", "--seconds 0.3", LEROBOT),
    Planned("train", "train", SHORT, LEROBOT),
    Planned("latency", "latency", SHORT, LEROBOT),
    Planned("train-gpu", "train --device cuda", SHORT, LEROBOT, gpu=True),
    Planned("latency-gpu", "latency --device cuda", SHORT, LEROBOT, gpu=True),
    Planned("stages", "stages", f"{SHORT} --batch 4 --context 4", {}),
    Planned("rollout-lift", "rollout --task lift", SHORT, ROBOSUITE),
    Planned("rollout-can", "rollout --task can", SHORT, ROBOSUITE),
    Planned("rollout-pusht", "rollout --task pusht", SHORT, PUSHT | LEROBOT),
    Planned("scaling", "rollout --task lift --scaling 1,2", "--pairs 3 --steps 20 --envs 4", ROBOSUITE),
    Planned(
        "cluster",
        "cluster --task lift",
        "--pairs 3 --steps 20 --envs 2",
        {"ray": "pip install ray"} | ROBOSUITE,
        detached=True,
    ),
    Planned("serve", "serve", "--pairs 2 --seconds 0.3", SERVE | LEROBOT),
    Planned("robot", "robot", "--seconds 2", LEROBOT),
    Planned("twin", "twin", "--seconds 2", {"mujoco": "pip install 'understudy[sim]'"}),
    Planned("dream", "dream", f"{SHORT} --batch 2", ROBOSUITE | PUSHT),
    Planned("report", "report", "", {}),
)
LEFT_OUT = (
    "Peers that no bench runs: Diffusion Policy (Python 3.9 and conda), robomimic (pins that exclude lerobot's), and "
    "openpi, whose client talks to our server but whose models need a GPU. `bench learn` needs a dataset with pictures."
)


def measure_all(out: Path, *, quick: bool = False, again: bool = False, busy: bool = False) -> None:
    """Run what is not there yet, then write and print the table.

    Raises:
        BusyError: other work keeps the machine busy, and there is something to measure.
        BenchError: another command works in the folder; in the end, the benches that failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with owned(out), listening():
            lacking = {planned.name: why for planned in PLAN if (why := missing(planned))}
            due = [one for one in PLAN if one.name not in lacking and (again or not is_there(out, one, quick))]
            if due:
                check_quiet(busy)
            failed = {one.name: why for one in due if (why := _run(out, one, quick, busy))}
    except InUseError as error:
        raise BenchError(f"another `understudy bench all` works in {out}; wait for it") from error
    found = {one.name: _document(out, one) for one in PLAN if is_there(out, one, quick)}
    study = tabulate(found, lacking | failed, quick, out)
    study.write(out / RECORDS / f"{ALL}.json")
    print(f"{study.markdown()}\n\n" + "\n".join(f"- {note}" for note in study.notes))
    print(f"\nrecords         {out / RECORDS}")
    if failed:
        raise BenchError(f"{len(failed)} of {len(due)} benches failed: " + "; ".join(map(": ".join, failed.items())))


def missing(planned: Planned) -> str:
    """What this machine lacks for a bench; "" where nothing is missing."""
    for module, how in planned.needs.items():
        if importlib.util.find_spec(module) is None:
            return f"needs {module}: {how}"
    if planned.gpu:
        import torch

        if not torch.cuda.is_available():
            return "needs a GPU"
    return ""


def words_of(planned: Planned, quick: bool) -> list[str]:
    """The words after `understudy bench`."""
    return shlex.split(f"{planned.words} {planned.quick if quick else ''}")


def is_there(out: Path, planned: Planned, quick: bool) -> bool:
    """Whether the bench was measured with these very settings, code, versions and machine."""
    document = _document(out, planned)
    if not document or "others" not in document or document.get("command") != _command(planned, quick):
        return False
    return document.get("code") == _code() and _lasting(document["machine"]) == _here()


def tabulate(found: Mapping[str, Mapping], absent: Mapping[str, str], quick: bool, out: Path) -> Study:
    """One row a ratio of what was measured; what was not, with its reason, in the notes."""
    rows = []
    for line in HEADLINES:
        if document := found.get(line.bench):
            times = line.times(document["result"])
            verdict = reached(times, line.target)
            rows.append((line.bench, line.what, line.peer, times, line.target, verdict, document["others"]))
    spoiled = [name for name, document in found.items() if (document["others"] or 0) > MOST]
    notes = [
        "Times as fast: above one ours is faster. Median of interleaved pairs and their range; of servers and the bus "
        "with its 95 % bootstrap interval; a value alone is of one run.",
        "Reached: yes where the low end reaches the target, in the median where only the middle does.",
        *(["A quick run, to see that all of it runs: its ratios are rough."] if quick else []),
        *(
            [f"Other work took more than {MOST:g} cores during {', '.join(spoiled)}: not to be trusted."]
            if spoiled
            else []
        ),
        *(f"Not measured: {name}: {why}." for name, why in absent.items()),
        LEFT_OUT,
        *sorted({machine_of({"machine": _lasting(document["machine"])}) for document in found.values()}),
    ]
    command = f"understudy bench all{' --quick true' if quick else ''} --out {out}"
    title = "Every bench in one run of one machine"
    return Study(title=title, command=command, columns=COLUMNS, rows=rows, notes=notes)


@cache
def _code() -> dict:
    """The commit that measures, and whether files differ from it."""
    return provenance()["code"]


@cache
def _here() -> dict:
    return _lasting(describe_machine())


def _lasting(machine: Mapping) -> dict:
    """What of a machine does not change from bench to bench."""
    return {name: value for name, value in machine.items() if name != "load"}


def _run(out: Path, planned: Planned, quick: bool, busy: bool) -> str:
    """Measure one bench; returns why it failed, or "" where it did not."""
    words, file, log = words_of(planned, quick), out / f"{planned.name}.json", out / f"{planned.name}.log"
    half = out / f".{planned.name}.json"
    log.unlink(missing_ok=True)
    print(f"{planned.name}: understudy bench {shlex.join(words)}", flush=True)
    try:
        check_quiet(busy)
        code, others = others_while(lambda: _wait(["understudy", "bench", *words, f"--out={half}"], log))
        if code not in (0, UNHEARD):
            why = "hung" if code is None else f"ended with status {code}"
            raise BenchError(f"{why}: {last_line(log)} (all of it: {log})")
        told = None if planned.detached else others
        document = json.loads(half.read_text()) | {"others": told, "code": _code()}
        replace_text(file, json.dumps(document) + "\n")
        if document["bench"] in TABLES and planned.name != "scaling":
            bench_study(document).write(out / RECORDS / f"{planned.name}.json")
        print(f"  {_first(planned.name, document)}", flush=True)
    except (LookupError, OSError, TypeError, ValueError) as error:
        print(f"  not measured: {error}; the others go on", flush=True)
        return str(error)
    finally:
        half.unlink(missing_ok=True)
    return ""


def _wait(words: Sequence[str], log: Path) -> int | None:
    """The status of a command; None where it took too long and was stopped."""
    process = start(words, log)
    deadline = time.monotonic() + LONGEST
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        return process.returncode
    except KeyboardInterrupt as pressed:
        raise KeyboardInterrupt("stopped; the same command goes on") from pressed
    finally:
        stop([process])


def _first(name: str, document: Mapping) -> str:
    """The first ratio of a bench, in words."""
    line = next((line for line in HEADLINES if line.bench == name), None)
    if line is None:
        return "done"
    times = line.times(document["result"])
    middle = times[1] if isinstance(times, tuple) else times
    return f"{line.what}: {middle:,.3g} times as fast as {line.peer}"


def _document(out: Path, planned: Planned) -> dict:
    """What a bench wrote; empty where it did not, or not to the end."""
    try:
        document = json.loads((out / f"{planned.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and "result" in document else {}


def _command(planned: Planned, quick: bool) -> str:
    """The command that the document of a bench names."""
    return command_of(parse(Settings, None, words_of(planned, quick)), "bench", without=("out",))
