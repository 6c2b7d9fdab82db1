"""How good the scripted experts are: measured over fixed env seeds, one JSON file a task, read by `understudy list`.

`understudy list experts --measure 100` acts from the reporting env seeds and writes `NAME.json` into the folder of
records. A file says what was measured and with which world and versions; whether these still hold, `stale` tells.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ...configs.documents import check_fields, read_object, sealed, unsealed
from ...configs.files import replace_text
from ...configs.progress import Progress
from ...configs.world import REPORT_STARTS, WORLDS, World, start_set
from ..ledger.provenance import provenance
from ..statistics.intervals import wilson

FORMAT = 1
RECORDS = Path(__file__).parents[1] / "records" / "experts"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an expert reached. The fields are the keys of its file."""

    format: int = FORMAT
    task: str
    expert: str  # name of the class
    start_set: str
    first: int  # first env seed
    episodes: int
    successes: int
    lost: tuple[int, ...]  # env seeds without success
    best_progress: float  # mean over the episodes of the best progress, 0..1
    errors: int  # episodes that could not be finished; they count as lost
    length: float  # mean control steps of an episode
    rate: float  # episodes a second, all in all
    world: str  # hash of the world's fingerprint
    provenance: dict  # code, versions, machine

    def __str__(self) -> str:
        low, _, high = wilson(self.successes, self.episodes)
        return f"{self.successes}/{self.episodes} [{low:.2f}, {high:.2f}], best progress {self.best_progress:.2f}"


def measure(name: str, episodes: int, workers: int = 0, block: int = 8) -> Measured:
    """Let the expert of the registered world `name` act from the env seeds 1000, 1001, ..."""
    from ...sim.experts import EXPERTS
    from ..rollout.crew import Crew
    from ..rollout.recipes import ExpertRecipe

    world = WORLDS[name]
    starts = range(REPORT_STARTS, REPORT_STARTS + episodes)
    begun, rows = time.perf_counter(), []

    with (
        Crew(world, min(block, episodes), workers) as crew,
        Progress(name, episodes, "episodes") as progress,
    ):
        for result in crew.run(ExpertRecipe(), starts, initial_conditions=start_set(world)):
            rows.append(result.row)
            progress.update(len(rows), f"success {sum(row['success'] for row in rows)}/{len(rows)}")

    lost = tuple(sorted(row["env_seed"] for row in rows if not row["success"]))
    return Measured(
        task=name,
        expert=EXPERTS[world.task].__name__,
        start_set=start_set(world),
        first=REPORT_STARTS,
        episodes=episodes,
        successes=episodes - len(lost),
        lost=lost,
        best_progress=round(sum(row["best_progress"] for row in rows) / episodes, 4),
        errors=sum(bool(row["error"]) for row in rows),
        length=round(sum(row["length"] for row in rows) / episodes, 1),
        rate=round(episodes / (time.perf_counter() - begun), 3),
        world=_hash(world),
        provenance=provenance(),
    )


def write_measured(measured: Measured, folder: Path) -> Path:
    """Write beside and rename; returns the file."""
    values = sealed(dataclasses.asdict(measured))
    return replace_text(folder / f"{measured.task}.json", json.dumps(values, indent=1) + "\n")


def read_measured(name: str, folder: Path = RECORDS) -> Measured | None:
    """What was measured of the expert of `name`; None where nothing was, or by another version of this file."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    values = read_object(path, ValueError, "measured expert")
    if values.get("format") != FORMAT:
        return None
    values = unsealed(values, path, ValueError)
    check_fields(Measured, values, path, ValueError)
    return Measured(**values | {"lost": tuple(values["lost"])})


def stale(measured: Measured) -> bool:
    """Whether the world is another one by now (its settings, physics or versions)."""
    return measured.world != _hash(WORLDS[measured.task])


def _hash(world: World) -> str:
    text = json.dumps(world.fingerprint(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
