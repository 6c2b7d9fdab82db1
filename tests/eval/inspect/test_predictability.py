"""The predictability ratio: planted processes give the ratio they were made with; probes are the published ones."""

import numpy as np
import pytest
import torch

from understudy.eval.inspect import predictability
from understudy.eval.inspect.predictability import (
    Errors,
    Probe,
    _order,
    _train,
    _weights,
    held_out_errors,
    pooled,
    ratio,
)

PROBE = Probe(repeats=1)


def process(seed, memory, noise, count=40, steps=60):
    """Trajectories of a[t] = memory a[t-1] + noise e, begun in their stationary state."""
    rng = np.random.default_rng(seed)
    spread = noise / np.sqrt(1 - memory**2)
    found = []
    for _ in range(count):
        one = [spread * rng.normal(size=2)]
        for _ in range(steps - 1):
            one.append(memory * one[-1] + noise * rng.normal(size=2))
        found.append(np.array(one))
    return found


def measured(expert, rollouts, probe=PROBE):
    batches = probe.batches(expert, rollouts)
    errors = [held_out_errors(one, probe, batches) for one in (expert, rollouts)]
    return ratio(*errors, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("memory", "noise", "wanted"),
    [
        (0.9, 0.1, 1.0),  # another sample of the same process
        (0.9, 0.2, 0.25),  # the same memory, more noise
        (0.0, 0.1 / np.sqrt(1 - 0.9**2), 1 - 0.9**2),  # the same actions as a set, without memory
        (0.9, 0.05, 4.0),  # more predictable than the expert
    ],
)
def test_a_planted_process_has_its_ratio(memory, noise, wanted):
    found = measured(process(0, 0.9, 0.1), process(1, memory, noise))
    assert found.low < wanted < found.high
    assert found.estimate == pytest.approx(wanted, rel=0.12) and found.high / found.low < 1.3


def test_longer_rollouts_are_not_favoured_by_more_training():
    found = measured(process(0, 0.9, 0.1, steps=30), process(1, 0.9, 0.1, steps=120))
    assert found.estimate == pytest.approx(1, abs=0.1)


def test_every_trajectory_is_held_out_whole_and_once_a_repeat(monkeypatch):
    seen = {}

    def remember(before, after, held, probe, batches, rng):
        seen["held"] = held
        return np.ones(held.shape)

    monkeypatch.setattr(predictability, "_train", remember)
    lengths = np.arange(5, 25)
    errors = held_out_errors([np.zeros((t, 2)) for t in lengths], Probe(repeats=3), 1)
    held = seen["held"]
    assert held.shape == (30, (lengths - 1).sum()) and (held.sum(0) == 3).all()
    owner = np.repeat(np.arange(20), lengths - 1)
    for one in range(20):
        assert (held[:, owner == one] == held[:, owner == one][:, :1]).all()
    assert (held.sum(1) > 0).all() and [len(one) for one in errors.steps] == (lengths - 1).tolist()


def test_batched_probes_are_trained_as_each_alone():
    probe = Probe(epochs=6, patience=0, batch=32, folds=2)
    x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    y = np.sin(3 * x).astype(np.float32)
    held = np.arange(400) % 2 == np.arange(2)[:, None]
    together = _train(x, y, held, probe, 5, np.random.default_rng(3))
    assert np.allclose(together, alone(x, y, held, probe, 5, np.random.default_rng(3)), rtol=1e-3, atol=1e-6)
    assert not np.allclose(together, _train(x, y, held, Probe(epochs=6, batch=32), 5, np.random.default_rng(3)))


def alone(x, y, held, probe, batches, rng):
    """The same by torch's own layers, optimiser and schedule, one probe after the other."""
    weights = _weights(2, 2, probe.width, torch.Generator().manual_seed(int(rng.integers(2**31))))
    epochs = [[_order(np.flatnonzero(~row), batches * 32, rng) for row in held] for _ in range(probe.epochs)]
    errors = []
    for f in range(2):
        net = torch.nn.Sequential(torch.nn.Linear(2, probe.width), torch.nn.ReLU(), torch.nn.Linear(probe.width, 2))
        with torch.no_grad():
            for parameter, weight in zip(net.parameters(), weights, strict=True):
                parameter.copy_(weight[f].T.reshape(parameter.shape))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        for epoch in epochs:
            total = 0.0
            for rows in np.split(epoch[f], batches):
                loss = (net(torch.from_numpy(x[rows])) - torch.from_numpy(y[rows])).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()
            schedule.step(total / batches)
        with torch.no_grad():
            errors.append((net(torch.from_numpy(x)) - torch.from_numpy(y)).square().mean(1).numpy())
    return np.stack(errors)


def test_an_epoch_is_as_long_as_the_largest_set_takes():
    small, large = [np.zeros((11, 2))] * 10, [np.zeros((101, 2))] * 100
    assert PROBE.batches(small) == 1 and PROBE.batches(small, large) == round(10_000 * 0.9 / 256)


def test_where_plans_meet_is_left_out():
    errors = Errors((np.arange(1, 9.0), np.arange(1, 4.0)))  # actions 1..8 and 1..3
    assert [one.tolist() for one in errors.inside(4).steps] == [[1, 2, 3, 5, 6, 7], [1, 2, 3]]


def test_trainings_are_pooled_over_seeds_and_trajectories():
    def errors(seed, mean):
        return Errors(tuple(np.random.default_rng(seed).exponential(mean, (50, 30))))

    def pool(*means):
        return pooled(errors(0, 1), [errors(i + 1, mean) for i, mean in enumerate(means)], np.random.default_rng(0))

    one, alike, apart = pool(2), pool(2, 2, 2), pool(1, 2, 4)
    assert one.estimate == pytest.approx(0.5, rel=0.1) and apart.estimate == pytest.approx(0.5, rel=0.1)
    assert one.high / one.low < 1.4 and apart.low < 0.2 and apart.high > 2  # t with two degrees of freedom
    single = ratio(errors(0, 1), errors(1, 2), np.random.default_rng(0))
    assert one.low == pytest.approx(single.low, rel=0.02) and alike.low < alike.estimate < alike.high


@pytest.mark.parametrize(
    ("trajectories", "message"),
    [([np.zeros((5, 2)), np.zeros((1, 2))], "1 trajectories of two"), ([np.full((5, 2), np.nan)] * 10, "not finite")],
)
def test_what_cannot_be_probed_is_refused(trajectories, message):
    with pytest.raises(ValueError, match=message):
        held_out_errors(trajectories, PROBE, 1)
