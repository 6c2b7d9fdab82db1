"""Where the search for weights gets its outcomes: a mixture acts in a world, one record for each choice of weights.

The records are the cache. What is recorded is not played again, so that a search that was stopped goes on, and searches
of another kind in the same folder share what they have in common. All weights act from the same initial conditions with
the same noise, sampler and number of executed actions, in whole blocks, so that a record does not depend on the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..ledger.provenance import provenance
from ..ledger.record import MANIFEST, RecordWriter, read_record
from ..ledger.table import OUTCOMES
from ..rollout.crew import Crew, Job
from ..rollout.recipes import Recipe
from .search import Weights


def slug(weights: Weights) -> str:
    """Name of a record: `0.300-0.700`."""
    return "-".join(f"{part:.3f}" for part in weights)


@dataclass
class MixtureStage:
    """Plays weights in environments and records the episodes under `folder`.

    Args:
        recipe: how to make the agent of some weights.
        parts: fingerprints of the parents, in their order.
        manifest: what all records say: policy, agent, world, starts.
        columns: initial_conditions and policy_seed of the rows.
        on: success | progress.
        watch: told the number of episodes played so far, without those remembered, after each block.
    """

    folder: Path
    crew: Crew
    recipe: Callable[[Weights], Recipe]
    parts: Sequence[str]
    manifest: Mapping
    columns: Mapping
    on: str = "success"
    watch: Callable[[int], None] = lambda episodes: None
    writers: dict[Weights, RecordWriter] = field(default_factory=dict)
    played: int = 0
    jobs: dict[tuple[Weights, int], Job] = field(default_factory=dict)  # by weights and first env seed

    def expect(self, weights: Weights, starts: Sequence[int]) -> None:
        """These env seeds will be asked for: let idle workers play them."""
        if weights not in self.writers and (self.folder / slug(weights) / MANIFEST).is_file():
            self._open(weights)
        done = self.writers[weights].done if weights in self.writers else frozenset()
        if (weights, starts[0]) not in self.jobs and not set(starts) <= done:
            job = self.crew.submit(self.recipe(weights), starts, skip=done, **self.columns)
            self.jobs[weights, starts[0]] = job

    def evaluate(self, weights: Weights, starts: Sequence[int]) -> list[float]:
        """Outcomes in [0, 1] from these env seeds, played or remembered."""
        self.expect(weights, starts)
        writer = self.writers.get(weights) or self._open(weights)
        if job := self.jobs.pop((weights, starts[0]), None):
            for result in self.crew.results(job):
                writer.add(result.row)
                self.played += 1
            self.watch(self.played)
        return [min(1.0, max(0.0, float(writer.rows[start][OUTCOMES[self.on]]))) for start in starts]

    def close(self) -> None:
        """Write all tables; a record asked for as many episodes as it has."""
        for job in self.jobs.values():
            self.crew.drop(job)
        self.jobs.clear()
        for writer in self.writers.values():
            writer.note(starts=self.manifest["starts"] | {"count": len(writer.done)})
            writer.close(complete=True)
        self.writers.clear()

    def _open(self, weights: Weights) -> RecordWriter:
        folder = self.folder / slug(weights)
        begun = (folder / MANIFEST).is_file()
        starts = dict(self.manifest["starts"]) | {"count": 0}
        if begun:  # how many it holds depends on where the search was; all else must be the same
            starts["count"] = read_record(folder).manifest["starts"]["count"]
        policy = dict(self.manifest["policy"]) | {"fingerprint": fingerprint(self.parts, weights)}
        policy["path"] = f"{policy['path']} at {slug(weights)}"
        policy["config"] = policy["config"] | {"weights": list(weights)}
        manifest = dict(self.manifest) | {"policy": policy, "starts": starts} | provenance()
        self.writers[weights] = RecordWriter(folder, manifest, resume=begun)
        return self.writers[weights]


def fingerprint(parts: Sequence[str], weights: Weights) -> str:
    """Hash of the parents and their weights, whatever their order; a parent without weight counts for nothing."""
    pairs = sorted((part, round(weight, 9)) for part, weight in zip(parts, weights, strict=True) if weight)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
