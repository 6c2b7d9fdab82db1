"""The settings of `understudy inspect`, which the files of this room read.

One of them says what is asked: a dataset or run (`source`), policies (`policy`), or a critic (`critic`). The verb
itself stands in `inspect.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ...configs.lanes.pulse import TIMEOUT
from ...configs.machine import cache_folder

PLACE = "inspect"  # folder of the cache for pages that nobody named a place for


def page_place(out: Path | None, name: str) -> Path:
    """`out`, which must not exist, or a file of the cache by this name, which the same question overwrites."""
    if out is None:
        return cache_folder() / PLACE / f"{name}.html"
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another --out")
    return out


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Print and draw what is in a dataset, print what is in a run, or ask policies how they use the past."""

    RENAMED: ClassVar[dict[str, str]] = {"seed": "env_seed"}  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("source",)

    source: str = ""  # dataset folder or hub id; run, checkpoint or episode record
    out: Path | None = (
        None  # folder of the page, or .html; .png, .svg or .pdf: one picture; default: in the cache; else .html alone
    )
    embodiment: Path | None = None  # who acts, where the dataset does not say
    quality: bool = False  # of a dataset: how good it is to imitate, instead of what is in it; `out` is then a .json
    reference: str = ""  # with quality: the dataset that return and coverage are relative to
    critic: str = ""  # instead of a source: a trained critic, beside recorded episodes; policy: whose spread to beat
    policy: tuple[str, ...] = ()  # instead of a source: runs, settings of a grid (all seeds), or a grid
    world: str = ""  # with policy: where to act, for the action predictability ratio; with critic too: maps of scores
    data: str = ""  # with policy: demonstrations; default those that the run was trained on
    episodes: int | str | None = (
        None  # of a dataset: which, such as 0-5,7-9; with policy: rollouts of each, and as many demonstrations; 100
    )
    without: str = ""  # of a dataset: episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(
        default_factory=dict
    )  # of a dataset: {action: actions, observation.state: [a, b]}
    shown: int = 12  # of a dataset: episodes with films and curves on the page
    env_seed: int = 0  # with policy: first env seed; 0-999 are for looking, 1000-9999 for reporting
    windows: int = 256  # with policy: held-out windows by which observed frames are judged
    keys: bool = False  # with policy: judge each observation key of a frame alone, too
    repeats: int = 3  # with policy: seeds of the probes, of ten folds each
    workers: int = 0  # with policy: processes for the world; 0: in this one
    timeout: float = TIMEOUT  # with policy: s for a control step of the world, 60 times that for an episode; 0: any
    threads: int = 1  # with policy: of torch on the CPU
    record: Path | None = None  # with policy: write both tables as studies, FILE.json and FILE-frames.json

    @property
    def rollouts(self) -> int:
        """How many episodes each policy acts. Raises ValueError for what is no number."""
        asked = 100 if self.episodes is None else self.episodes
        if isinstance(asked, str) and not asked.strip().isdigit():
            raise ValueError(
                f"--episodes {asked} chooses episodes of a dataset; of policies it is a number, such as 100"
            )
        return int(asked)
