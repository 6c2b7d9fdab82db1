"""`understudy eval --world-model RUN --data DATASET`: how well a world model foretells recorded films; nobody acts.

PSNR, SSIM and latent error over the horizon beside copying the first frame, action following, errors of the states that
are read from imagined frames, and a page with true and imagined films side by side. Films are kept, so that others than
the model's own judge may judge them, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.command import command_of
from ...configs.files import new_folder, replace_text
from ...configs.progress import counted
from ...world_models.gate import note, passes
from ..ledger.foretold import FILMS, IMAGINED, TRUE
from ..ledger.provenance import provenance
from ..ledger.record import MANIFEST, REPORT, WORLD_MODEL
from ..ledger.verify import sealed
from ..offline.held_out import keys_of, training_of
from .measures import (
    LABELS,
    failure_lines,
    judge_lines,
    judged,
    read_off,
    reading_lines,
    remarks,
    starts_line,
    success_lines,
    success_over_time,
    summarise,
    verdict,
)

if TYPE_CHECKING:
    import numpy as np

    from ...policies.data.dataset import Dataset
    from ...world_models.film_model import FilmModel
    from ...world_models.films import Clips

HELD_OUT, ALL = "held-out", "all"
FLAG = "--world-model"


@dataclass(frozen=True, kw_only=True)
class EvalWorldModel:
    """Let a world model imagine recorded films from their first frames and actions, and measure how alike they are.

    Whether it may judge policies is another question, which the gate asks first: does it follow its actions?
    """

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "world_models")

    world_model: str  # run or checkpoint folder of a `video` model
    data: str  # LeRobot dataset with its cameras: folder or hub id; several: A,B
    out: str  # folder of the record; must not exist
    episodes: str = HELD_OUT  # held-out: those that its training held out, all of a dataset it never saw; or all, 0-5,7
    without: str = ""  # episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions}; default as recorded
    embodiment: str | None = None  # file that says who acts, where the dataset does not
    horizon: int = 64  # control steps of a film
    films: int = 64  # at most, spread evenly over the episodes
    shown: int = 6  # films on the page
    kept: int = 64  # films that `understudy judge` can judge, true and imagined, at most; tens of KB each; 0: none
    seed: int = 0  # of shuffled actions, and of the noise of a model that is a field
    batch: int = 16  # films at a time
    threads: int = 1  # of torch on the CPU
    device: str = "cpu"  # cpu | cuda

    def __post_init__(self):
        for name in ("horizon", "films", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.kept < 0:
            raise ValueError(f"--kept is a number of films, 0 for none, got {self.kept}")

    def run(self) -> None:
        about = judge(self)
        print(text(about))
        out = Path(os.path.expandvars(self.out))
        print(f"\nreport          {out / REPORT}")
        if kept := len(about.get(FILMS, ())):
            print(f"films           {kept}, half of them imagined; understudy judge {out} --judge person")


def asks_for_world_model(words: Sequence[str]) -> bool:
    """Whether the words of `understudy eval` name a world model."""
    names = (FLAG, FLAG.replace("-m", "_m"))
    return any(word in names or word.startswith(tuple(f"{name}=" for name in names)) for word in words)


def judge(config: EvalWorldModel) -> dict:
    """Measure, write record and page, and return the manifest.

    Raises:
        ValueError: saying what does not fit: the model, the dataset, its episodes, or the place of the record.
    """
    import torch

    from ...world_models.films import HORIZONS

    root = Path(os.path.expandvars(config.out))
    if root.exists():
        raise ValueError(f"'{root}' exists; give another --out")
    torch.set_num_threads(config.threads)
    model, info = open_video(config.world_model, config.device)
    dataset = _open(config, model)
    places, data = _select(config, dataset)

    begun = time.perf_counter()
    wanted = [step for step in HORIZONS if step <= config.horizon]
    wanted += [config.horizon] if config.horizon not in wanted else []
    measures, cut, worst_to_best, own = _measure(config, model, dataset, places, wanted)
    measures["following"] |= {"trained_on": True} if data["trained_on"] else {}
    about = {
        "kind": WORLD_MODEL,
        "world_model": {key: info[key] for key in ("path", "step", "type", "config")} | _fingerprint(info["path"]),
        "data": data | {"rate": dataset.rate},
        "settings": {
            name: getattr(config, name) for name in ("horizon", "films", "seed", "batch", "threads", "device")
        },
        "measures": measures | {"gate": passes(measures["following"])},
        "seconds": round(time.perf_counter() - begun, 2),
        "command": command_of(config, "eval", without=("out",)),
    } | provenance()

    from ...world_models.films import part
    from .kept import keep
    from .page import render

    page = render(about, model, part(cut, _spread(worst_to_best, config.shown)))

    def fill(beside: Path) -> None:
        if chosen := _spread(range(len(cut)), config.kept).tolist():
            told = {"rate": dataset.rate, "episodes": dataset.episode_ids}
            about[FILMS] = keep(beside, model, cut, chosen, own, told, config.batch, config.seed)
        replace_text(beside / MANIFEST, json.dumps(sealed(about), indent=1, default=str))
        replace_text(beside / REPORT, page)

    new_folder(root, fill)
    if data["trained_on"]:
        return about  # what was noted of films that it had not seen stays
    try:
        known = measures["following"] | {name: measures[name] for name in ("starts", "endings", "read")}
        note(info["path"], about["world_model"]["fingerprint"], known)
    except OSError as error:
        print(f"warning: {info['path']} cannot be told what was measured ({error}); no dream of it will rank policies")
    return about


def open_video(source: str, device: str = "cpu") -> tuple[FilmModel, dict]:
    """A world model that imagines, of a run or checkpoint. Raises CheckpointError, FileNotFoundError."""
    from ...policies.learning.checkpoint import CheckpointError, load_model
    from ...world_models.film_model import FilmModel

    model, info = load_model(source, "world")
    if not isinstance(model, FilmModel):
        raise CheckpointError(
            f"{info['path']} holds a {info['type']}, which imagines nothing; give the run of a `video` trained on it"
        )
    return model.to(device), info


def _open(config: EvalWorldModel, model: FilmModel) -> Dataset:
    options = {"episodes": "all" if config.episodes == HELD_OUT else config.episodes, "without": config.without}
    dataset = model.config.open(config.data, config.embodiment, **options, sources=config.columns)
    model.embodiment.check(dataset.embodiment, tuple(model.inputs))
    return dataset


def _select(config: EvalWorldModel, dataset: Dataset) -> tuple[list[int], dict]:
    """Positions of the episodes that are imagined, and what a manifest says of them."""
    training, keys = training_of(config.world_model, dataset, config.data), keys_of(dataset)
    chosen = set(keys)
    if config.episodes == HELD_OUT and training.same:
        chosen &= training.held_out
    if not chosen:
        notes = f" ({'; '.join(training.notes)})" if training.notes else ""
        raise ValueError(
            f"the training of {config.world_model} held no episode of {config.data} out{notes}; take other data, train "
            "with --validation 0.1, or look at films that it was trained on: --episodes all"
        )
    places = [place for place, key in enumerate(keys) if key in chosen]
    seen = [int(dataset.episode_ids[place]) for place in places if keys[place] in training.trained]
    if seen:
        print(f"warning: the model was TRAINED on {len(seen)} of these {counted(len(places), 'episode')}")
    return places, {
        "source": config.data,
        "fingerprint": dataset.fingerprint,
        "episodes": [int(dataset.episode_ids[place]) for place in places],
        "trained_on": seen,
        "known": training.known,
        "notes": list(training.notes),
    }


def _measure(config: EvalWorldModel, model: FilmModel, dataset: Dataset, places: list[int], wanted: list[int]):
    import numpy as np

    from ...configs.progress import Progress
    from ...world_models.endings import endings
    from ...world_models.films import clips, familiar, lags, measure, part, told_fakes

    cut = clips(dataset, model, places, config.horizon, config.films)
    parts: list[dict] = []
    with Progress("imagining", len(cut), "films") as progress:
        for at in range(0, len(cut), config.batch):
            parts.append(measure(model, part(cut, slice(at, at + config.batch)), wanted, config.seed + at))
            progress.update(min(at + config.batch, len(cut)))
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    measured = {name: np.concatenate([part[name] for part in parts]) for name in shared}

    spreads = {key: np.maximum(dataset.columns[key].std(0), 1e-6).tolist() for key in cut.states}
    measures: dict[str, Any] = summarise(measured, wanted, cut.episode, spreads)
    measures |= {"films": len(cut), "lags": lags(model, dataset, places, model.horizon, config.films)}
    measures |= {"judge": judged(measured, wanted, cut.outcome, cut.known) | {"fakes": told_fakes(model, cut)}}
    wrong, own = _gone_wrong(config, model, cut)
    measures |= wrong
    measures |= {"starts": familiar(model, dataset, places)}
    measures |= {"read": read_off(measures["states"], drawn=model.draws)}
    measures |= {"endings": endings(model, dataset, places, config.films, config.batch, config.seed).about()}
    measures |= {"names": {key: list(model.embodiment.offers()[key]) for key in cut.states}, "spreads": spreads}
    return measures, cut, np.argsort(measured["psnr true"][:, -1]), own


def _spread(places: Sequence[int], most: int) -> np.ndarray:
    """At most `most` of them, evenly spread."""
    import numpy as np

    return np.asarray(places)[np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))]


def _gone_wrong(
    config: EvalWorldModel, model: FilmModel, cut: Clips
) -> tuple[dict[str, Any], dict[str, list[bool | None]]]:
    """How the films fail, and how long imagined success is worth something: `failures`, `success`.

    Also whether the model's judge sees success at any of its looks, kind -> of each film.
    """
    import numpy as np

    from ...world_models.failures import Seen, catalogue, looks, watch
    from ...world_models.films import part

    steps = looks(cut, model.config.eyes.gap)
    if len(steps) < 2:
        none = np.zeros((0, 1))
        nobody: list[bool | None] = [None] * len(cut)
        nothing = {"failures": {}, "success": success_over_time(none, none, none, [], np.zeros(0))}
        return nothing, dict.fromkeys((TRUE, IMAGINED), nobody)
    pairs = [
        watch(model, part(cut, slice(at, at + config.batch)), config.seed + at)
        for at in range(0, len(cut), config.batch)
    ]
    true, imagined = (_joined(Seen, [pair[side] for pair in pairs]) for side in (0, 1))
    outcome, known = cut.outcome[:, steps, 0], cut.known[:, steps, 0]
    shown = [place for place, step in enumerate(steps[1:]) if step & (step - 1) == 0 or step == steps[-1]]
    told = [0, *(place + 1 for place in shown)]
    sees = {TRUE: true.success, IMAGINED: imagined.success}
    return {
        "failures": catalogue(true, imagined, outcome, known),
        "success": success_over_time(
            np.maximum.accumulate(imagined.success[:, 1:], 1)[:, shown],
            np.maximum.accumulate(np.where(known, outcome, 0), 1)[:, told],
            known[:, told],
            [steps[place + 1] for place in shown],
            cut.episode,
        ),
    }, {kind: (seen.max(1) >= 0.5).tolist() for kind, seen in sees.items()}


def _joined(kind, parts: list):
    """What several batches of films show, as one."""
    import dataclasses

    import numpy as np

    columns = {one.name: [getattr(part, one.name) for part in parts] for one in dataclasses.fields(kind)}
    return kind(**{name: None if some[0] is None else np.concatenate(some) for name, some in columns.items()})


def _fingerprint(path: str) -> dict:
    from ...policies.learning.checkpoint import fingerprint

    return {"fingerprint": fingerprint(Path(path))}


def text(about: dict) -> str:
    """What the terminal says of a measured model."""
    measures = about["measures"]
    rows, steps = measures["by_step"], measures["steps"]
    lines = [
        f"{counted(measures['films'], 'film')} of {counted(len(about['data']['episodes']), 'episode')} of "
        f"{about['data']['source']}",
        "",
    ]
    lines.append("frames on".ljust(28) + "".join(f"{step:>8}" for step in steps))
    for name, label in LABELS.items():
        if name in rows:
            lines.append(label.ljust(28) + "".join(f"{value[1]:8.3g}" for value in rows[name]))
    for key, kinds in measures["states"].items():
        short = key.removeprefix("observation.")
        for kind, label in (("imagined", "imagined"), ("true", "true")):
            values = "".join(f"{value:8.3g}" for value in kinds[kind]["relative"])
            lines.append(f"{short[:14]}, {label}".ljust(28) + values)
    lines.append("(of states: error of what is read from frames, in spreads)")
    lines += [*judge_lines(measures["judge"]), "", *success_lines(about), "", *failure_lines(about), ""]
    lines += [starts_line(about), *reading_lines(about), "", verdict(about)]
    return "\n".join(lines + [f"note: {note}" for note in remarks(about)])
