"""The critic that `--critic` describes, for the policy that it judges.

    runs/value              a trained critic: run or checkpoint folder; of several tasks: runs/value@TASK
    runs/dream/video        a world model: ranked by what it imagines of each plan
    recall                  a registered critic that needs no training; `random` is the control
    recall:5>runs/value     the 5 best plans by the first, ranked by the second
    recall+0.5*runs/value   weighted sum of z-scores within a lane

A folder is recognised because it is there; `>` is read before `+`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.plugins import discover, lookup
from ...configs.protocols import keeps

if TYPE_CHECKING:
    from ..policy import Critic, Planner


def open_critic(text: str, policy: Planner, device: str = "cpu") -> Critic:
    """The critic of `text` beside `policy`.

    Raises:
        ValueError: a combination that makes no sense, or a critic that cannot judge this policy.
        LookupError: neither a folder nor a registered critic that needs no training.
    """
    if _there(text):
        return _single(text, policy, device)
    from .combine import FilterThenRank, Weighted

    if ">" in text:
        sieve, _, then = text.partition(">")
        first, _, keep = sieve.rpartition(":")
        if not first or not keep.strip().isdigit():
            raise ValueError(f"'{sieve}' before '>' does not say how many plans are kept; write for example recall:5>B")
        return FilterThenRank(open_critic(first, policy, device), int(keep), open_critic(then, policy, device))
    if "+" in text or "*" in text:
        terms = [_term(term) for term in text.split("+")]
        return Weighted(tuple(_single(name, policy, device) for _, name in terms), tuple(w for w, _ in terms))
    return _single(text, policy, device)


def critic_checkpoints(text: str | None) -> list[Path]:
    """The checkpoint folders of the trained critics in `text`, as found now."""
    from ..learning.checkpoint import find_checkpoint

    return [find_checkpoint(folder) for folder in critic_folders(text)]


def critic_folders(text: str | None) -> list[str]:
    """The folders of the trained critics in `text`, as they are written there, without a task."""
    names = [text] if text and _there(text) else re.split("[>+]", text or "")
    names = [
        name.strip() if _there(name.strip()) else re.sub(r"^[^*]*\*|:\s*\d+\s*$", "", name).strip() for name in names
    ]
    folders = [_with_task(name)[0] for name in names]
    return [folder for folder in folders if folder and _there(folder)]


def critics_moved(text: str | None, places: Mapping[str, str]) -> str | None:
    """`text` with other folders in place of those that it names."""
    if not text or not places:
        return text
    longest = sorted(places, key=len, reverse=True)
    ends = r"(?=$|[>+:@\s])"
    return re.sub("|".join(re.escape(folder) + ends for folder in longest), lambda found: places[found[0]], text)


def _term(text: str) -> tuple[float, str]:
    """`0.5*name` or `name`."""
    weight, times, name = text.partition("*")
    if not times:
        return 1.0, text
    try:
        return float(weight), name
    except ValueError:
        raise ValueError(f"'{weight}' is no weight; write for example 0.5*recall") from None


def _single(name: str, policy: Planner, device: str) -> Critic:
    from ..learning.checkpoint import _document, find_checkpoint, load_config, load_model
    from ..policy import CriticConfig, Ready, TaskJudge

    name = name.strip()
    folder, task = _with_task(name)
    if _there(folder):
        found = find_checkpoint(folder)
        document = _document(found)
        if document.get("kind") == "world":
            return load_config(document, found).critic(found, policy, device)  # type: ignore[union-attr]
        critic = load_model(folder, "critic")[0].to(device)
        critic.embodiment.check(policy.embodiment)
        if task is not None or keeps(critic, TaskJudge):
            critic.judge_task(task)
        return critic
    discover("policies")
    ready = {key: kind for key, kind in CriticConfig.get_known_choices().items() if keeps(kind, Ready)}
    try:
        config = lookup("critic", name, ready)()
    except LookupError as error:
        raise LookupError(f"{error}; or the folder of a trained critic") from None
    return config.beside(policy)


def _with_task(name: str) -> tuple[str, str | None]:
    """`RUN@TASK` -> run and task; None where no task is named."""
    folder, _, task = name.partition("@")
    return (folder, task) if task and not _there(name) else (name, None)


def _there(name: str) -> bool:
    return Path(os.path.expandvars(name)).exists()
