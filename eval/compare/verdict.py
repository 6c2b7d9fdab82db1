"""Which of two policies is better, as `understudy.compare` says it: a few numbers with one sign, A - B."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...configs.notebook import facts_html, facts_text
from ...configs.progress import counted
from ..statistics.intervals import Interval
from .comparison import Comparison, Difference
from .page import PAGE


@dataclass(frozen=True, repr=False)
class Verdict:
    """A against B. Differences are A - B, of rates and of progress in 0..1; intervals two-sided, 95 %.

    Attributes:
        better: "A" or "B", where one succeeds more often at the level asked for; None: not shown.
        success: difference of the success rates over the pairs; None where each had initial conditions of its own.
        progress: difference of the mean best progress, likewise.
        n: pairs, the initial conditions that both acted from.
        only_a, only_b: pairs of which one alone succeeded.
        p: exact McNemar, for a number of pairs fixed beforehand; None where it was not.
        detectable: the smallest difference of success that n pairs show with power .8; None: hardly any.
        says: the same in words.
        comparison: all of it, also of more than two.
        folder: where the page and the records lie; None: nowhere.
    """

    better: str | None
    success: Interval | None
    progress: Interval | None
    n: int
    only_a: int
    only_b: int
    p: float | None
    detectable: float | None
    says: str
    comparison: Comparison
    folder: Path | None = None

    @classmethod
    def of(cls, comparison: Comparison, folder: str | os.PathLike | None = None) -> Verdict:
        """The first two of a comparison."""
        pairs = comparison.differences[0] if comparison.differences else None
        live = comparison.sequential
        if live:
            decision = live.get("decision")
            better, says = decision if decision in ("A", "B") else None, live["says"]
        else:
            better, says = _better(pairs, comparison.alpha), pairs.says if pairs else ""
        return cls(
            better=better,
            success=pairs.success if pairs else None,
            progress=pairs.progress if pairs else None,
            n=pairs.n if pairs else int(live.get("pairs", 0)),
            only_a=pairs.only_first if pairs else 0,
            only_b=pairs.only_second if pairs else 0,
            p=pairs.p if pairs else None,
            detectable=pairs.detectable if pairs else None,
            says=says,
            comparison=comparison,
            folder=None if folder is None else Path(folder),
        )

    def facts(self) -> dict[str, str]:
        """What there is to say, for people."""
        told = {one.label: f"{one.title}  success {one.success}, {one.successes} of {one.n}"
                for one in self.comparison.contestants}  # fmt: skip
        told |= {"better": self.better or "not shown"}
        if self.success is not None and self.progress is not None:
            told |= {
                "success, A - B": f"{_signed(self.success)}  {counted(self.n, 'pair')}, only A {self.only_a}, only "
                f"B {self.only_b}"
            }
            told |= {"progress, A - B": _signed(self.progress)}
        told |= {"p": f"{self.p:.2g}  exact McNemar"} if self.p is not None else {}
        told |= {"says": self.says}
        return told | ({"page": str(self.folder / PAGE)} if self.folder else {})

    def __repr__(self) -> str:
        return facts_text("Verdict", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts())


def _better(pairs: Difference | None, alpha: float) -> str | None:
    if pairs is None or pairs.p_holm is None or pairs.p_holm > alpha:
        return None
    return "A" if pairs.only_first > pairs.only_second else "B"


def _signed(interval: Interval) -> str:
    low, middle, high = interval
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"
