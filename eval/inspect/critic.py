"""`understudy inspect --critic RUN`: a critic's scores along recorded successes and failures, as numbers and a page.

The critic scores what was really done at each frame of episodes that it was not trained on (those held out of its
training, or other data). With a policy also what the policy would do there: its own spread around the recorded actions
is the perturbation that the recorded ones should beat; with a world where actions are places in the picture, maps of
the scores (`heat_map.py`). Whether candidates of one state are told apart in the world:
`within_state.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.command import command_of
from ...configs.episode import SENT, SUCCESS
from ...configs.files import replace_text
from ...configs.lanes.lanes import Lanes
from ...configs.protocols import keeps
from ...policies.data.weighting import successes
from ..ledger.study import Study, show
from ..pages.charts import Line, chart
from ..pages.page import page
from ..rollout.tried import Remembered
from .critic_facts import auc, bootstrap, by_episode, calibration, with_time_to_go
from .heat_map import HeatMap, heat_maps
from .settings import Settings, page_place

if TYPE_CHECKING:
    from ...policies.data.dataset import Dataset
    from ...policies.policy import Critic, Past, Planner

PAGE = "critic.html"
BATCH = 256  # windows asked at a time
MAPS = 4  # pictures with scores over them
PERTURBED = 10  # candidates of a policy at each state


@dataclass(frozen=True)
class Seen:
    """A critic's score of every frame's recorded actions."""

    scores: list[np.ndarray]  # by episode
    first: np.ndarray  # (M,) frame of the first success, -1 for none
    returns: list[np.ndarray] | None  # by episode, Monte-Carlo, by the critic's own rewards; None: it has none
    about: str

    @property
    def won(self) -> np.ndarray:
        """(M,) bool."""
        return self.first >= 0


def report(config: Settings) -> Path:
    """Ask the critic, print, write. Returns the page."""
    import torch

    torch.set_num_threads(config.threads)
    out = page_place(config.out, f"critic-{Path(config.critic).resolve().name}")
    critic, dataset, episodes, about = open_critic_and_data(config)
    maps = draw_maps(config, critic) if config.world and config.policy else []
    seen = look(critic, dataset, episodes, about)
    studies = [facts_study(config, seen)]
    if config.policy:
        studies.append(spread_study(config, critic, dataset, episodes))
        studies[0] = with_actions(studies[0], studies[1], config.policy)
    if seen.returns is not None:
        studies.append(calibration_study(config, seen))
    for study in studies:
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(f"{note}." for note in study.notes) + "\n")
    if config.record is not None:
        print(f"written: {studies[0].write(config.record)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, render(config.critic, seen, studies, maps))
    print(f"page: {out}")
    return out


def open_critic_and_data(config: Settings) -> tuple[Critic, Dataset, np.ndarray, str]:
    """The critic, the data, the positions of the episodes that it was not trained on, and these in words.

    Raises:
        ValueError: no data named and none known; episodes without labels.
    """
    from ...policies.data.open import open_dataset
    from ...policies.learning.checkpoint import load_model
    from ...policies.learning.run import held_out, read_as, training

    critic = load_model(config.critic, "critic")[0]
    settings = training(config.critic) or {}
    source = config.data or settings.get("data")
    if not source:
        raise ValueError(
            f"{config.critic} does not say what it was trained on; give --data with successes and failures"
        )
    same = str(source) == str(settings.get("data"))
    dataset = open_dataset(source, embodiment=config.embodiment, **read_as(settings if same else None))
    if SUCCESS not in dataset.columns:
        raise ValueError(f"{dataset.root} has no success labels; add them with `understudy label`")
    episodes, which = np.arange(len(dataset.lengths)), "all episodes"
    if same:
        held = held_out(dataset, settings)
        if len(held):
            episodes, which = held, "episodes held out of its training"
        else:
            which = "its training data"

    won = int((successes(dataset)[episodes] >= 0).sum())
    return critic, dataset, episodes, f"{len(episodes)} of {source}, {which}, {won} successes"


def look(critic: Critic, dataset: Dataset, episodes: np.ndarray, about: str) -> Seen:
    """Score every frame of the episodes."""
    from ...policies.data.rewards import rewards_of
    from ...policies.policy import Configured

    starts, lengths = dataset.starts[episodes], dataset.lengths[episodes]
    rows = np.concatenate([np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)])
    scores = np.concatenate([critic_scores(critic, *asked)[:, 0] for asked in _recorded(critic, dataset, rows)])
    borders = np.cumsum(lengths) - lengths
    rewards = rewards_of(critic.config) if keeps(critic, Configured) else None
    returns = None if rewards is None else rewards.rows(dataset, 1)["return"][rows]
    return Seen(
        scores=by_episode(scores, borders, lengths),
        first=successes(dataset)[episodes],
        returns=None if returns is None else by_episode(returns, borders, lengths),
        about=about,
    )


def critic_scores(critic: Critic, past: Past, future: np.ndarray) -> np.ndarray:
    """(B, N) scores of actions (B, N, H, D)."""
    import torch

    from ...policies.policy import Plans

    future = torch.as_tensor(future)
    plans = Plans(past.actions[:, None].expand(-1, future.shape[1], -1, -1), future, past.now)
    with torch.no_grad():
        return critic.score(past, plans).double().cpu().numpy()


def facts_study(config: Settings, seen: Seen) -> Study:
    """One row a fact."""
    rng = np.random.default_rng(0)
    go = with_time_to_go(seen.scores, seen.first)
    rows = []

    # Towards success, scores should rise.
    if len(go):
        for name, middle in {"mean": np.mean, "median": np.median}.items():
            interval = bootstrap(lambda some, m=middle: float(m(go[some])), len(go), rng)
            rows.append((f"rank correlation with time to go, {name} of the successes", interval, len(go)))

    # Successes should score above failures.
    for name, part in {"mean": np.mean, "first": lambda values: values[0], "last": lambda values: values[-1]}.items():
        values = np.array([part(episode) for episode in seen.scores])
        if 0 < seen.won.sum() < len(seen.won):
            interval = bootstrap(lambda some, v=values: auc(v[some], seen.won[some]), len(values), rng)
            rows.append((f"success above failure, by the episode's {name} score (AUC)", interval, len(values)))

    spread = np.array([episode.std() for episode in seen.scores])
    rows.append(("standard deviation of the scores within an episode", float(spread.mean()), len(spread)))

    return Study(
        title=f"What {config.critic} says of recorded episodes",
        command=command_of(Settings(critic=config.critic, data=config.data), "inspect"),
        columns=("fact", "value", "n"),
        rows=rows,
        notes=(
            f"Episodes: {seen.about}; scores of the recorded actions at every frame; n counts episodes",
            "95 % intervals: bootstrap over episodes",
            "A value of the state alone passes these; candidates of one state: understudy study within_state",
        ),
    )


def calibration_study(config: Settings, seen: Seen) -> Study:
    """Scores beside Monte-Carlo returns, frames in ten parts by score."""
    scores, returns = np.concatenate(seen.scores), np.concatenate(seen.returns)
    return Study(
        title="Scores beside the returns that followed",
        command=command_of(Settings(critic=config.critic, data=config.data), "inspect"),
        columns=("part of the frames, by score", "frames", "mean score", "mean return"),
        rows=[(place + 1, *part) for place, part in enumerate(calibration(scores, returns))],
        notes=("Returns by the critic's own rewards, of what was recorded; a critic of a better policy scores higher",),
    )


def spread_study(config: Settings, critic: Critic, dataset: Dataset, episodes: np.ndarray) -> Study:
    """Recorded actions against the same moved by what a policy's candidates differ by, and against any actions."""
    from ...policies.load import load_policy

    asked = Settings(critic=config.critic, data=config.data, policy=config.policy, windows=config.windows)
    rows, rng = [], np.random.default_rng(0)
    for path in config.policy:
        policy = load_policy(path)[0]
        for name, share in above(critic, policy, dataset, episodes, config.windows, rng).items():
            interval = bootstrap(lambda some, s=share: float(s[some].mean()), len(share), rng)
            rows.append((path, name, interval, len(share)))
    return Study(
        title="Recorded actions against others in the same state",
        command=command_of(asked, "inspect"),
        columns=("policy", "the recorded action scores above", "share of states", "states"),
        rows=rows,
        notes=(
            f"States: frames of the successes among these episodes, up to {config.windows}, evenly spread; "
            f"{PERTURBED} others in each, of which the mean score counts",
            "95 % intervals: bootstrap over states",
        ),
    )


def with_actions(facts: Study, spread: Study, policies: Sequence[str]) -> Study:
    """The facts, and those of the recorded actions against others, so that a record holds both."""
    rows = [(f"recorded action above {name}, {policy}", *cells) for policy, name, *cells in spread.rows]
    notes = (*facts.notes, "Where a policy is named, n counts states: " + spread.notes[0].removeprefix("States: "))
    command = f"{facts.command} --policy {shlex.join(policies)}"
    return replace(facts, rows=[*facts.rows, *rows], command=command, notes=notes)


def above(
    critic: Critic, policy: Planner, dataset: Dataset, episodes: np.ndarray, most: int, rng: np.random.Generator
) -> Mapping[str, np.ndarray]:
    """What was compared -> (W,) bool, whether the recorded actions scored above the mean of the others.

    Raises:
        ValueError: no success among the episodes.
    """
    import torch

    from ...policies.agent.goal import windows_of
    from ...policies.data.windows import Windows
    from ...policies.policy import LaneNoise, past_of
    from .past_matters import spread_rows

    first = successes(dataset)
    good = episodes[first[episodes] >= 0]
    if not len(good):
        raise ValueError("no success among the episodes: nothing that was done there is known to be good")

    rows = spread_rows(dataset.starts[good], first[good] + 1, most)
    low, high = np.asarray(policy.embodiment.limits, np.float32).T
    windows = Windows(dataset, policy.window, tuple(policy.inputs), **windows_of(policy))

    scored_above: dict[str, list[np.ndarray]] = {"itself moved by the policy's spread": [], "any action": []}
    for some, (past, future) in zip(_parts(rows), _recorded(critic, dataset, rows), strict=True):
        steps = future.shape[2]
        with torch.no_grad():
            asked = past_of(windows.gather(some), policy.window, tuple(policy.inputs))
            plans = policy.plan(asked, PERTURBED, LaneNoise(0, some, np.zeros_like(some))).future[:, :, :steps]

        moved = future + (plans - plans.mean(1, keepdim=True)).cpu().numpy()
        anything = rng.uniform(low, high, moved.shape).astype(np.float32)

        own = critic_scores(critic, past, future)[:, 0]
        for name, others in zip(scored_above, (moved.clip(low, high), anything), strict=True):
            scored_above[name].append(own > critic_scores(critic, past, others).mean(1))
    return {name: np.concatenate(parts) for name, parts in scored_above.items()}


def _recorded(critic: Critic, dataset: Dataset, rows: np.ndarray):
    """(past, (B, 1, H, D) executed actions) at the rows, a batch at a time."""
    import dataclasses

    from ...configs.spec import ACTION, Window
    from ...policies.agent.sight import images_of
    from ...policies.data.windows import Windows
    from ...policies.policy import past_of

    if SENT in dataset.columns:
        dataset = dataclasses.replace(dataset, columns=dataset.columns | {ACTION: dataset.columns[SENT]})
    own = critic.window
    window = Window(observe=own.observe, recall=own.recall, horizon=max(1, critic.reads))
    windows = Windows(dataset, window, tuple(critic.inputs), images=images_of(critic))
    for some in _parts(rows):
        batch = windows.gather(some)
        yield past_of(batch, window, tuple(critic.inputs)), batch[ACTION][:, None, len(window.recall) :].numpy()


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(BATCH, len(rows), BATCH))


def draw_maps(config: Settings, critic: Critic) -> list[HeatMap]:
    """Scores of places over pictures of the world, in which the first policy acts. Raises ValueError for others."""
    from ...configs.world import looked_at
    from ...policies.agent.agent import Agent
    from ...policies.load import load_policy
    from ...policies.policy import ensemble_of, executed_of
    from .policy import where

    policy = load_policy(config.policy[0])[0]
    if ensemble_of(policy) is not None:
        print("the maps show where the policy comes to by its newest chunk alone, without its temporal ensembling")
    agent = Agent(policy, lanes=MAPS, n_action_steps=executed_of(policy), critic=Remembered((critic,)))
    world = looked_at(where(config), agent.pictures)
    policy.embodiment.check(world.embodiment(), policy.inputs)
    with closing(Lanes(world, MAPS, config.workers, config.timeout)) as lanes:
        return heat_maps(agent, critic, lanes, range(config.env_seed, config.env_seed + MAPS))


def render(name: str, seen: Seen, studies: list[Study], maps: Sequence[HeatMap] = ()) -> str:
    """The page."""
    from markupsafe import Markup

    return page(PAGE, name=name, chart=Markup(along_chart(seen)), studies=studies, show=show, maps=maps)


def along_chart(seen: Seen) -> str:
    """Mean score, and where the middle half lies, of successes and of failures against the steps before their end."""
    lines = []
    for name, chosen in (("successes", seen.won), ("failures", ~seen.won)):
        ends = [
            scores[: end + 1] if end >= 0 else scores
            for scores, end, taken in zip(seen.scores, seen.first.tolist(), chosen.tolist(), strict=True)
            if taken
        ]

        # Aligned at their ends.
        if ends:
            longest = int(np.median([len(bound) for bound in ends]))
            table = np.full((len(ends), longest), np.nan)
            for row, bound in zip(table, ends, strict=True):
                row[max(0, longest - len(bound)) :] = bound[-longest:]
            low, high = np.nanquantile(table, (0.25, 0.75), axis=0)
            style = "success" if name == "successes" else "failure"
            steps = list(range(1 - longest, 1))
            lines.append(Line(steps, np.nanmean(table, 0).tolist(), style, name, low.tolist(), high.tolist()))

    ys = [y for line in lines for y in (*line.low, *line.high)]
    words = {"x_label": "steps before success, or before the cut", "y_label": "score of the recorded actions"}
    return chart(lines, y_range=(min(ys), max(ys)), **words)
