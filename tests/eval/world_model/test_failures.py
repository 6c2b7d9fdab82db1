"""Each way in which a film goes wrong is counted where it happens; imagined success is believed while it is right."""

import dataclasses

import numpy as np

from understudy.eval.world_model.measures import success_lines, success_over_time
from understudy.world_models.failures import Seen, catalogue

FILMS, LOOKS = 6, 5
NOBODY = np.zeros((FILMS, LOOKS))


def faithful():
    """Films in which things move between all looks but the last two."""
    change = np.full((FILMS, LOOKS - 1), 0.02)
    change[:, -1] = 0.0
    states = np.linspace(0, 1, LOOKS)[None, :, None] * np.ones((FILMS, 1, 2))
    return Seen(change, np.full((FILMS, LOOKS), 0.1), states, np.zeros((FILMS, LOOKS, 2)), NOBODY)


def counted(imagined, outcome=NOBODY):
    said = catalogue(faithful(), imagined, outcome, np.ones_like(outcome, bool))
    return {name: (one["count"], one["films"]) for name, one in said.items() if one["count"]}


def spoilt(name, at, value):
    film = faithful()
    values = getattr(film, name).copy()
    values[at] = value
    return dataclasses.replace(film, **{name: values})


def test_a_faithful_film_has_no_fault():
    assert counted(faithful()) == {}


def test_each_fault_is_counted_once_where_it_happens():
    assert counted(spoilt("change", (0, 1), 0.0)) == {"copied": (1, 1), "copied, slow": (1, 1)}
    assert counted(spoilt("change", (slice(2), -1), 0.02)) == {"moved alone": (2, 2)}
    assert counted(spoilt("stands_out", (1, slice(3, 5)), 0.01)) == {"vanished": (2, 1)}
    assert counted(spoilt("stands_out", (1, 2), 0.2)) == {"duplicated": (1, 1)}
    assert counted(spoilt("states", (3, 4, 0), 3.0)) == {"teleported": (1, 1)}
    assert counted(spoilt("lost", (4, 2, 1), 9.0)) == {"views disagree": (1, 1)}


def test_successes_that_are_invented_missed_or_lost():
    won = NOBODY.copy()
    won[0, 2:] = 1  # a true success that stays, judged and then lost
    judged = NOBODY.copy()
    judged[0, 2:4] = 0.9
    assert counted(dataclasses.replace(faithful(), success=judged), won) == {"success lost": (1, 1)}
    assert counted(faithful(), won) == {"missed success": (3, 1)}
    judged[1, 3] = 0.9
    film = dataclasses.replace(faithful(), success=judged)
    assert counted(film, won) == {"success lost": (1, 1), "false success": (2, 1)}


def test_imagined_success_is_believed_until_it_says_nothing():
    rng, films = np.random.default_rng(0), 80
    steps, episodes = (4, 8, 16, 32), np.arange(films) // 2
    when = rng.choice([3, 7, 12, 60, 99], films)
    won = np.column_stack([np.zeros(films), *(when <= step for step in steps)])
    known = np.ones_like(won, bool)
    judged = np.where(won[:, 1:] > 0, 0.8, 0.1)
    over = success_over_time(judged, won, known, steps, episodes)
    assert over["believed"] == 32 and over["films"] == films
    invented = judged.copy()
    invented[:, 2:] = rng.random((films, 2))  # from 16 on it says anything
    over = success_over_time(invented, won, known, steps, episodes)
    assert over["believed"] == 8
    about = {"measures": {"success": over}, "data": {"rate": 10.0}}
    assert "believed up to 8 frames (0.8 s)" in success_lines(about)[-1]
    about["measures"]["success"] = success_over_time(judged, won * 0, known, steps, episodes)
    assert "nobody can tell" in success_lines(about)[-1]
