"""What a damaged file does: files of every format are damaged in small ways; what opens them must say so.

    understudy study mutations --out eval/records/trust/mutations.json
    understudy study mutations --only checkpoint,record --trials 200 --told out/mutations.jsonl

Small sources are made first: recordings of the world `point` in three layouts, with numbers, films and pictures, and in
the formats of other programs (robomimic, Diffusion Policy, RLDS), two trainings, a mixture, a critic, records, a
comparison, an alarm, settings. A trial copies one, damages one of its files (`_mutate.py`), opens it in a process of
its own and compares what comes out with the undamaged. It ends as

    unharmed   the same comes out
    told       a refusal in our own words, or the other content comes with a warning
    unclear    a refusal in the words of a library below, without ours
    traceback  an error that the command line would not answer
    silent     other content, without a word
    cannot be told    other content that nothing contradicts: a changed number in a file without a digest or a
                      redundancy, a changed setting of one's own YAML

A process that a library below ends (a crash in a decoder) counts as a traceback. What cannot be told is decided by the
file and the place of the damage alone (`UNTELLABLE`), never by what came out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import select
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...configs.command import command_of
from ...configs.progress import Progress
from ...configs.spec import Embodiment
from ..ledger.study import Study
from ._mutate import damage
from ._sources import make_sources

OUTCOMES = ("unharmed", "told", "unclear", "traceback", "silent", "cannot be told")
PATIENCE = 120.0  # seconds that opening may take; longer is a traceback, for it hangs


@dataclass(frozen=True)
class Subject:
    """Something that is damaged: a folder, those of its files that are, and what opens it."""

    folder: str  # name among the sources
    files: tuple[str, ...]  # patterns below it
    opened: Callable[[Path], object]  # folder -> what came out, as JSON-able values; equal for equal content


@dataclass(frozen=True)
class Trial:
    """One damage and what it did."""

    subject: str
    done: str  # in words
    outcome: str
    said: str  # message, or what came out


@dataclass(frozen=True, kw_only=True)
class Mutations:
    """Damage files of every format in small ways, and count what is said of it."""

    trials: int = 60  # damages of each subject
    seed: int = 0  # of the damages
    only: tuple[str, ...] = ()  # subjects; default all
    told: Path | None = None  # file for every trial, a line of JSON each
    out: Path | None = None  # JSON of the table

    def run(self) -> None:
        from ...configs.plugins import lookup

        for name in self.only:
            lookup("subject", name, SUBJECTS)
        subjects = {name: SUBJECTS[name] for name in self.only or SUBJECTS}
        with tempfile.TemporaryDirectory(prefix="understudy-mutations-") as folder:
            sources = make_sources(Path(folder) / "sources")
            found = [trial for name in subjects for trial in campaign(name, sources, Path(folder), self)]
        if self.told:
            self.told.parent.mkdir(parents=True, exist_ok=True)
            self.told.write_text("".join(json.dumps(vars(trial)) + "\n" for trial in found))

        study = self._study(found)
        print(study.markdown(), *study.notes, sep="\n")
        for trial in found:
            if trial.outcome in ("silent", "unclear", "traceback"):
                print(f"{trial.outcome}: {trial.subject}, {trial.done}: {trial.said[:200]}")
        if self.out:
            print(study.write(self.out))

    def _study(self, found: Sequence[Trial]) -> Study:
        rows = []
        for name in dict.fromkeys(trial.subject for trial in found):
            counts = Counter(trial.outcome for trial in found if trial.subject == name)
            rows.append((name, counts.total(), *(counts[outcome] for outcome in OUTCOMES)))
        total = Counter(trial.outcome for trial in found)
        rows.append(("all", total.total(), *(total[outcome] for outcome in OUTCOMES)))
        return Study(
            title="Damaged files",
            command=command_of(self, "study mutations"),
            columns=("what", "damages", *OUTCOMES),
            rows=rows,
            notes=(
                f"{total.total()} damages, seed {self.seed}; a subject is a kind of file or folder",
                "told: a refusal in our own words, or a warning; cannot be told: nothing in the file or beside it "
                "contradicts the change, as one changed number in a recording without digests",
            ),
        )


def campaign(name: str, sources: Path, work: Path, config: Mutations) -> list[Trial]:
    """All trials of one subject."""
    subject, rng = SUBJECTS[name], random.Random(f"{name} {config.seed}")
    source, copy = sources / subject.folder, work / "copy"
    base = _apart(subject, _fresh(source, copy))
    again = _apart(subject, _fresh(source, copy))
    if base[0] != "opened" or again != base:
        raise ValueError(f"the undamaged {name} does not open alike twice: {base}, {again}")

    trials: list[Trial] = []
    with Progress(name, config.trials, "damages") as progress:
        while len(trials) < config.trials:
            _fresh(source, copy)
            files = sorted({str(p.relative_to(copy)) for f in subject.files for p in copy.glob(f) if p.is_file()})
            done = damage(copy, files, rng)
            if done is not None:
                trials.append(_judged(name, done, base[1], _apart(subject, copy)))
                progress.update(len(trials))
    shutil.rmtree(copy)
    return trials


def _fresh(source: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy, symlinks=True)
    return copy


def _judged(name: str, done: str, base: str, came: tuple[str, str, str]) -> Trial:
    """How a trial ended, from what came out of the undamaged and of the damaged."""
    kind, out, warned = came
    if kind != "opened":
        return Trial(name, done, kind, out)
    if out == base:
        return Trial(name, done, "unharmed", "")
    if warned:
        return Trial(name, done, "told", warned)
    if any(re.search(pattern, done) for pattern in UNTELLABLE.get(name, ())):
        return Trial(name, done, "cannot be told", out)
    return Trial(name, done, "silent", f"{base} became {out}")


def _apart(subject: Subject, folder: Path) -> tuple[str, str, str]:
    """Open in a forked process: (outcome, what came out or was said, warnings)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            answer = _open(subject, folder)
            with os.fdopen(writing, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ready = _read_all(pipe, process)
    os.waitpid(process, 0)
    return tuple(json.loads(ready)) if ready else ("traceback", "it hung or crashed", "")


def _read_all(pipe, process: int) -> str:
    """What the process says until it ends; nothing if it takes too long, and then it is ended."""
    parts: list[bytes] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if select.select([pipe], [], [], 0.5)[0]:
            part = os.read(pipe.fileno(), 65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)
    os.kill(process, signal.SIGKILL)
    return ""


def _open(subject: Subject, folder: Path) -> tuple[str, str, str]:
    """What opens, as the command line would take its errors."""
    from ... import __main__ as line

    said, heard = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(said):
        warnings.simplefilter("always")
        with contextlib.redirect_stderr(heard):
            try:
                out = json.dumps(subject.opened(folder), sort_keys=True, default=str)
            except Exception as error:
                if not (isinstance(error, line.EXPECTED) or type(error).__module__.startswith("draccus")):
                    return "traceback", f"{type(error).__name__}: {error}", ""
                line._report("study", error)
                text = heard.getvalue()
                return ("unclear" if "--traceback" in text else "told"), text.strip(), ""
    told = [str(warning.message) for warning in caught]
    told += [text for text in said.getvalue().splitlines() if "warning" in text]
    return "opened", out, "; ".join(dict.fromkeys(told))[:1000]


# -- what opens them


def opened_recording(folder: Path) -> object:
    from ...policies.data.open import open_dataset

    data = open_dataset(folder)
    columns = {key: _digest(values) for key, values in data.columns.items()}
    return [len(data.lengths), data.lengths.tolist(), data.rate, data.tasks, data.embodiment.to_json(), columns]


def opened_pictures(folder: Path) -> object:
    """All pictures of the first camera."""
    from ...policies.data.frames import open_frames
    from ...policies.data.open import open_dataset

    with tempfile.TemporaryDirectory() as cache:
        os.environ["UNDERSTUDY_CACHE"] = cache
        data = open_dataset(folder)
        frames = open_frames(data, next(iter(data.cameras)))
        return [len(data), _digest(frames.read(np.arange(len(data))))]


def opened_foreign(folder: Path) -> object:
    """A recording of another format: rows, texts, what is said of the episodes, all pictures."""
    from ...policies.data.frames import open_frames
    from ...policies.data.layout import SOURCE
    from ...policies.data.open import open_dataset

    names = [path for path in folder.iterdir() if path.suffix in (".hdf5", ".zarr", ".zip")]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UNDERSTUDY_CACHE"] = cache
        source = names[0] if names else folder
        data = open_dataset(source)
        columns = {key: _digest(values) for key, values in data.columns.items()}
        pictures = [_digest(open_frames(data, name).read(np.arange(len(data)))) for name in data.cameras]
        about = json.loads((data.root / SOURCE).read_text())["episodes"]
        body = data.embodiment.to_json()
        return [data.lengths.tolist(), data.rate, data.tasks, body, columns, pictures, about]


def opened_policy(folder: Path) -> object:
    """Two plans for each of two made-up observations."""
    import torch

    from ...policies.load import load_policy
    from ...policies.policy import LaneNoise, Past, Policy

    loaded, info = load_policy(folder)
    policy = cast(Policy, loaded)
    window, sizes = policy.window, {key: len(names) for key, names in policy.embodiment.offers().items()}
    generator = torch.Generator().manual_seed(1)
    past = Past(
        obs={key: torch.rand(2, len(window.observe), sizes[key], generator=generator) for key in policy.inputs},
        obs_times=window.observe,
        obs_valid=torch.ones(2, len(window.observe), dtype=torch.bool),
        actions=torch.zeros(2, len(window.recall), len(policy.embodiment.action)),
        action_times=window.recall,
        action_valid=torch.ones(2, len(window.recall), dtype=torch.bool),
        now=torch.zeros(2, dtype=torch.int64),
    )
    plans = policy.plan(past, 2, LaneNoise(5, np.arange(2), np.zeros(2, np.int64)))
    return [info["type"], policy.embodiment.to_json(), policy.n_action_steps, _digest(plans.future.numpy())]


def opened_critic(folder: Path) -> object:
    """Its weights and settings, as they would score."""
    from ...policies.learning.checkpoint import load_model

    critic, info = load_model(folder, "critic")
    body = cast(Embodiment, critic.embodiment)
    weights = {name: _digest(value.numpy()) for name, value in critic.state_dict().items()}
    return [info["type"], info["config"], body.to_json(), weights]


def resumed_run(folder: Path) -> object:
    """The weights and the log after the training went on to its end."""
    from ...policies.learning.run import training
    from ...policies.learning.train import resume_run

    resume_run(folder)
    log = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("rate", "seconds")
    lines = [{key: value for key, value in line.items() if key not in clocks} for line in log]
    weights = (folder / "last/model.safetensors").read_bytes()
    return [hashlib.sha256(weights).hexdigest(), lines, str(training(folder))]


def opened_record(folder: Path) -> object:
    """Its rows, their summary and its report."""
    from ..evaluate.report import render
    from ..ledger.record import read_record
    from ..ledger.summary import summarize

    record = read_record(folder)
    table: Any = record.table
    return [table.to_pylist(), str(summarize(record)), hashlib.sha256(render(record).encode()).hexdigest()]


def opened_comparison(folder: Path) -> object:
    from ..compare.comparison import read_comparison

    return read_comparison(folder)


def opened_alarm(folder: Path) -> object:
    from ...policies.agent.alarm import load_alarm

    return [str(vars(load_alarm(path))) for path in sorted(folder.glob("alarm.json"))] or load_alarm(
        folder / "alarm.json"
    )


def opened_study(folder: Path) -> object:
    from ..ledger.study import read_study

    return str(read_study(folder / "study.json"))


def opened_settings(folder: Path) -> object:
    """All three files, as their verbs read them."""
    import draccus

    from ...configs.parse import parse
    from ...policies.learning.train import Train
    from ..evaluate.evaluate import Eval
    from ..grid.run import Run

    verbs = {"train.yaml": Train, "eval.yaml": Eval, "grid.yaml": Run}
    settings = {name: parse(verb, str(folder / name), []) for name, verb in verbs.items()}
    settings["train.yaml"].check()
    return {name: draccus.encode(part) for name, part in settings.items()}


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


# -- what is damaged

RECORDING = (
    "meta/info.json",
    "meta/tasks.*",
    "meta/embodiment.json",
    "meta/episodes*",
    "meta/episodes/*/*",
    "data/*/*",
)
ACTING = ("config.json", "embodiment.json", "model.safetensors", "digests.json")
STATE = "checkpoints/*/training_state/*"

SUBJECTS: Mapping[str, Subject] = {
    "recording v3.0, meta": Subject("states", ("meta/*.json", "meta/tasks.parquet"), opened_recording),
    "recording v3.0, episodes": Subject("states", ("meta/episodes/*/*",), opened_recording),
    "recording v3.0, data": Subject("states", ("data/*/*",), opened_recording),
    "recording without a card": Subject("bare", RECORDING, opened_recording),
    "recording v2.1": Subject("v2", RECORDING, opened_recording),
    "labels": Subject("states", ("meta/labels.json",), opened_recording),
    "films": Subject("films", ("videos/*/*/*", "meta/episodes/*/*"), opened_pictures),
    "pictures": Subject("pictures", ("data/*/*",), opened_pictures),
    "robomimic HDF5": Subject("robomimic", ("*.hdf5",), opened_foreign),
    "replay buffer, v2": Subject("buffer2", ("*.zarr/**/*", "*.zarr/**/.*"), opened_foreign),
    "replay buffer, v3": Subject("buffer3", ("*.zarr/**/*",), opened_foreign),
    "replay buffer, zip": Subject("zipped", ("*.zip",), opened_foreign),
    "RLDS": Subject("rlds", ("*",), opened_foreign),
    "checkpoint, weights": Subject("checkpoint", ("model.safetensors",), opened_policy),
    "checkpoint, settings": Subject("checkpoint", ("config.json", "embodiment.json", "digests.json"), opened_policy),
    "critic": Subject("critic", ACTING, opened_critic),
    "mixture": Subject("mixture", (*ACTING, "parents/*/*"), opened_policy),
    "training state, weights": Subject("half", (f"{STATE}.safetensors",), resumed_run),
    "training state, documents": Subject("half", (f"{STATE}.json", "checkpoints/*/*.json"), resumed_run),
    "run, settings": Subject("half", ("config.yaml", "task_spec.yaml", "*.json"), resumed_run),
    "run, log": Subject("half", ("metrics.jsonl",), resumed_run),
    "record, manifest": Subject("record", ("manifest.json",), opened_record),
    "record, table": Subject("record", ("episodes.parquet",), opened_record),
    "record, rows of a killed run": Subject("killed", ("episodes.jsonl",), opened_record),
    "comparison": Subject("comparison", ("compare.json",), opened_comparison),
    "alarm": Subject("alarm", ("alarm.json",), opened_alarm),
    "study": Subject("study", ("study.json",), opened_study),
    "settings in YAML": Subject("settings", ("*.yaml",), opened_settings),
}  # fmt: skip

VALUES = (
    r"data/.*(to whole numbers|doubled values|exchanged columns|to float64): (action|observation|next|success)",
    r"data/.*(bit|zeros)",  # inside of a column's pages
)
# labels and a YAML of one's own say what one wants; a recording may hold any number; a killed run may have come
# anywhere; a record without digests is one of an earlier version
UNTELLABLE: Mapping[str, tuple[str, ...]] = {
    "recording v3.0, data": VALUES,
    "recording without a card": (*VALUES, r"meta/info.json: .*(names|robot_type|fps)"),
    "recording v2.1": VALUES,
    "pictures": VALUES,
    "films": (r"videos/.*(bit|zeros)",),
    "robomimic HDF5": (
        r"hdf5: (bit|\d+ zeros|doubled values|turned)",  # no checksums, and any number may be
        r"hdf5: (lost|renamed|row lost|a number less): (mask|data/demo_\d+/(dones|states))",  # what is not carried
    ),
    "replay buffer, v2": (r"data/.*/\d[\d.]*: (bit|\d+ zeros|exchanged|garbage)", r"\.zarray: (bit|exchanged)"),
    "replay buffer, v3": (r"data/.*/c/.*: (bit|\d+ zeros|exchanged|garbage)", r"data/.*zarr\.json: (bit|exchanged)"),
    "RLDS": (r"\.json: .*(name|bit|exchanged)",),  # names of splits and of the dataset, what a feature is called
    "labels": (r"'success', '\d+'\): (True|False) became", r"'success', '\d+'\) taken out"),
    "record, manifest": (r"\('digests',\)( taken out|.* became None)",),
    "record, rows of a killed run": (r"line \d+ lost", r"cut to"),
    "settings in YAML": (r"\.yaml: ",),
}
