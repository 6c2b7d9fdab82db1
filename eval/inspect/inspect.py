"""`understudy inspect`: what is in a dataset, a run or a checkpoint, how policies use the past, what a critic says.

The composition root: looking at files is `files.py`, asking policies is `policy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inspect(Settings):
    """Print and draw what is in a dataset, print what is in a run, or ask policies how they use the past."""

    def run(self) -> None:
        """Print, and draw what is to be drawn.

        Raises:
            ValueError, OSError: neither or both of source and policy; what they name is not there, or `out` exists.
        """
        from ...policies.data.layout import DatasetError

        if bool(self.policy or self.critic) == bool(self.source):
            raise DatasetError(
                "say what to inspect: understudy inspect DATA|RUN, inspect --policy RUN, or --critic RUN"
            )
        if self.out is not None and self.out.exists():
            raise FileExistsError(f"{self.out} exists; choose another --out")
        from .files import require_place, show

        if not self.policy and not self.critic:
            show(
                self.source, self.out, self.embodiment, self.quality, self.reference,
                shown=self.shown, episodes="all" if self.episodes is None else str(self.episodes), without=self.without,
                sources=self.columns,
            )  # fmt: skip
            return
        if self.quality:
            raise ValueError("--quality is of a dataset; leave --policy and --critic out")
        if min(self.rollouts, self.windows, self.repeats) < 1 or self.env_seed < 0:
            raise ValueError("episodes, windows and repeats are at least 1, and env_seed at least 0")
        if self.out is not None and self.out.suffix != ".html":
            raise ValueError(f"what policies and critics do is drawn as a page; give a .html instead of {self.out}")
        if self.out is not None:
            require_place(self.out, (".html",))

        from ...configs.plugins import discover

        discover("policies", "sim")  # only now: looking at files needs none of them
        if self.critic:
            from .critic import report
        else:
            from .page import report
        report(self)
