"""Episodes of one policy in one world, in memory: what `understudy.rollout` gives. Nothing is written."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...configs.episode import Episode
from ...configs.lanes.lanes import Lanes
from ...configs.notebook import facts_html, facts_text
from ...configs.progress import Progress, counted
from ...configs.settings.decode import keys_of
from ...configs.world import World, start_set
from ..ledger.record import Record
from ..ledger.table import table_of
from ..statistics.intervals import Interval, mean_interval, wilson
from .actors import TapeActor
from .film import SAME, choose
from .rollout import Actor, rollout


@dataclass(frozen=True, repr=False)
class Rollouts:
    """n episodes, one from each env seed, sorted by it. Intervals are two-sided, 95 %.

    Attributes:
        title: who acted.
        world: where.
        rows: n dicts with the columns of a record (`success`, `best_progress`, `length` in control steps, ...);
            `pandas.DataFrame(rollouts.rows)` is a table of them.
        actions: env seed -> (T, D) float32, what the policy asked for, in units of the embodiment.
        episodes: everything that was seen and done, where it was kept.
        films: env seed -> (T + 1, h, w, 3) uint8 RGB, the filmed ones.
        rate: control steps (and pictures) a second.
    """

    title: str
    world: World
    rows: tuple[dict, ...]
    actions: Mapping[int, np.ndarray]
    episodes: tuple[Episode, ...] = ()
    films: Mapping[int, np.ndarray] = field(default_factory=dict)
    rate: float = 10.0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def successes(self) -> int:
        """Episodes that succeeded; one that ended in an error of the environment did not."""
        return sum(row["success"] for row in self.rows)

    @cached_property
    def success(self) -> Interval:
        """Rate of success, Wilson's interval."""
        return wilson(self.successes, len(self.rows))

    @cached_property
    def progress(self) -> Interval:
        """Mean of the best progress, 0..1, Student's t interval."""
        return mean_interval([row["best_progress"] for row in self.rows])

    def column(self, name: str) -> list:
        """One column of the rows. Raises KeyError for an unknown one."""
        return [row[name] for row in self.rows]

    @cached_property
    def record(self) -> Record:
        """The same as a record that lies nowhere, for whatever reads records."""
        seeds = self.column("env_seed")
        manifest = {
            "policy": {"path": self.title},
            "world": {"type": self.world.get_choice_name(type(self.world)), "config": keys_of(self.world)},
            "starts": {"set": start_set(self.world), "first": seeds[0], "count": len(seeds)},
            "complete": True,
        }
        return Record(Path(self.title), manifest, table_of(self.rows))

    def save_films(self, folder: str | Path) -> list[Path]:
        """Write each film as `FOLDER/ENV_SEED.mp4`."""
        from ...policies.data.encode import write_mp4

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for seed, film in self.films.items():
            written.append(folder / f"{seed:06d}.mp4")
            write_mp4(written[-1], frames=film, rate=self.rate, quality=26, group=30)
        return written

    def facts(self) -> dict[str, str]:
        """What there is to say of them, for people."""
        seeds, n = self.column("env_seed"), len(self.rows)
        errors = sum(bool(row["error"]) for row in self.rows)
        told = {
            "policy": self.title,
            "world": f"{start_set(self.world)}, env seeds {seeds[0]}..{seeds[-1]}",
            "success": f"{self.success}  {self.successes} of {n}, Wilson 95 %",
            "best progress": f"{self.progress}  mean, 95 %",
            "length": f"{np.mean(self.column('length')):.0f} steps, {np.mean(self.column('length')) / self.rate:.1f} s",
        }
        told |= {"errors": f"{counted(errors, 'episode')}, counted as failures"} if errors else {}
        return told | ({"films": counted(len(self.films), "episode")} if self.films else {})

    def __repr__(self) -> str:
        return facts_text(f"Rollouts of {counted(len(self.rows), 'episode')}", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts()) + "".join(self._films_html())

    def _films_html(self):
        won = {row["env_seed"]: row["success"] for row in self.rows}
        with tempfile.TemporaryDirectory() as folder:
            for seed, path in zip(self.films, self.save_films(folder), strict=True):
                data = base64.b64encode(path.read_bytes()).decode()
                said = f"env seed {seed}, {'success' if won[seed] else 'failure'}"
                yield (
                    f"<figure style='display:inline-block;margin:4px'><video controls loop muted width=200 "
                    f"src='data:video/mp4;base64,{data}'></video><figcaption>{said}</figcaption></figure>"
                )


def collect(
    actor: Actor, lanes: Lanes, env_seeds: Sequence[int], *, title: str, policy_seed: int = 0, films: int = 0,
    keep: bool = False,
) -> Rollouts:  # fmt: skip
    """Act from every env seed and keep what came of it in memory.

    Args:
        films: episodes to film, first failures and first successes; by playing their actions again.
        keep: keep whole episodes: all observations, pictures too where the world has cameras.
    """
    kind, results = start_set(lanes.world), []
    with Progress("acting", len(env_seeds), "episodes") as progress:
        for result in rollout(actor, lanes, env_seeds, initial_conditions=kind, policy_seed=policy_seed, keep=keep):
            results.append(result)
            won = sum(done.row["success"] for done in results)
            progress.update(len(results), f"success {won}/{len(results)}")
    results.sort(key=lambda result: result.start)
    rows = {result.start: result.row for result in results}
    actions = {result.start: result.actions for result in results}
    return Rollouts(
        title=title,
        world=lanes.world,
        rows=tuple(rows.values()),
        actions=actions,
        episodes=tuple(result.episode for result in results if result.episode is not None),
        films=_film(lanes, rows, actions, choose(rows.values(), films)) if films else {},
        rate=lanes.embodiment.rate,
    )


def _film(lanes: Lanes, rows: Mapping[int, Mapping], actions: Mapping[int, np.ndarray], chosen: Sequence[int]) -> dict:
    """Pictures of the chosen episodes; none of one that comes out otherwise when it is played again."""
    tapes = {seed: actions[seed] for seed in chosen}
    films = {}
    for result in rollout(TapeActor(tapes, lanes.num_envs), lanes, list(tapes), film=tapes.keys()):
        if result.film and all(result.row[name] == rows[result.start][name] for name in SAME):
            films[result.start] = np.stack(result.film)
    return dict(sorted(films.items()))


def in_lanes(world: World, environments: int, workers: int, timeout: float | None) -> closing[Lanes]:
    """Copies of a world, for a `with` statement."""
    return closing(Lanes(world, environments, workers, timeout))
