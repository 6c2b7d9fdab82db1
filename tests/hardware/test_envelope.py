"""Whatever a guard is fed, what it gives out stays in the envelope: by hypothesis, and a hundred thousand commands."""

import numpy as np
import pytest

from understudy.hardware.guard import Command, Envelope, Measured, Outcome

hypothesis = pytest.importorskip("hypothesis", reason="property tests: pip install 'understudy[dev]'")
pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

KINDS = ("hold", "near", "jump", "far", "nan", "inf", "huge", "stale", "old", "again", "none", "unread", "late", "fast")


def fed(guard, arm, judge, kinds, rng):
    """Drive with commands of the given kinds; checks every set-point on the way."""
    envelope: Envelope = guard.envelope
    low, high = arm.low, arm.high
    now, number, target = guard.due - guard.step_length, 0, guard.goal
    place, speed, push = guard.goal, np.zeros(6), np.zeros(6)
    outcomes = []
    for kind in kinds:
        elapsed = {"late": 0.3, "fast": 0.2 * guard.step_length}.get(kind, guard.step_length)
        now, number = now + elapsed, number + 1
        if kind == "near":
            target = np.clip(target + rng.normal(0, 0.03, 6), low, high)
        elif kind == "jump":
            target = rng.uniform(low, high)
        elif kind == "far":
            target = rng.uniform(2 * low, 2 * high)
        asked = np.array(target)
        if kind in ("nan", "inf", "huge"):
            asked[rng.integers(6)] = {"nan": np.nan, "inf": np.inf, "huge": 1e300}[kind]
        stamp = now - 3.0 if kind == "stale" else now
        count = {"old": number - 5, "again": number - 1}.get(kind, number)
        command = None if kind == "none" else Command(target=asked, time=stamp, number=count)
        measured = None if kind == "unread" else Measured(position=place, time=now)
        verdict = guard.step(measured, command, now)
        outcomes.append(verdict.outcome)

        sent = verdict.sent
        if kind == "late":  # nobody asked for longer than the silence: the arm stood
            speed, push = np.zeros(6), np.zeros(6)
        if "dropped" in str(verdict):
            assert (sent == place).all() and kind == "fast"
        else:
            velocity = (sent - place) * guard.rate
            acceleration = (velocity - speed) * guard.rate
            jerk = (acceleration - push) * guard.rate
            assert (np.abs(velocity) <= envelope.velocity * (1 + 1e-6)).all()
            assert (np.abs(acceleration) <= envelope.acceleration * (1 + 1e-5)).all()
            assert (np.abs(jerk) <= envelope.jerk * (1 + 1e-4)).all()
            assert (np.abs(judge.torque(sent, velocity, acceleration)) <= envelope.torque + 1e-6).all()
            speed, push = velocity, acceleration
        assert np.isfinite(sent).all() and (sent >= low - 1e-6).all() and (sent <= high + 1e-6).all()
        if (sent != place).any():
            assert judge.nearest(sent).min() >= envelope.clearance - 1e-4
        place = sent
        if verdict.outcome is Outcome.stopped and guard.rests:
            guard.engage(Measured(position=place, time=now), now)
    return outcomes


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=20, max_size=50),
    rate=st.sampled_from([30.0, 60.0, 200.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_nothing_leaves_the_envelope(guard, arm, judge, kinds, rate, seed):
    fed(guard(rate), arm, judge, kinds, np.random.default_rng(seed))


def test_silence_stops_the_arm(guard, arm, judge):
    moving, kinds = guard(100.0), ["jump"] + ["hold"] * 60
    fed(moving, arm, judge, kinds, np.random.default_rng(0))
    assert not moving.rests
    stopped = guard(100.0)
    fed(stopped, arm, judge, kinds + ["none"] * 25, np.random.default_rng(0))
    assert stopped.rests


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_commands(guard, arm, judge, seed):
    rng = np.random.default_rng(seed)
    made = guard([30.0, 60.0, 100.0, 200.0][seed % 4])
    chances = np.array([8, 8, 3, 1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.4, 0.2, 0.2, 0.2])
    kinds = rng.choice(KINDS, 10_000, p=chances / chances.sum())
    outcomes = fed(made, arm, judge, kinds, rng)
    assert {Outcome.passed, Outcome.bent, Outcome.stopped} >= set(outcomes) and len(outcomes) == 10_000
