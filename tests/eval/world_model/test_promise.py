"""What is promised of a dream holds for trainings that it was not made from, and what cannot be promised is refused."""

import dataclasses
import json
from contextlib import nullcontext

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.eval.ledger.dreams import DreamGateError, refuse_unproven
from understudy.eval.ledger.record import MANIFEST, RecordWriter, read_record
from understudy.eval.statistics.calibration import left_out
from understudy.eval.world_model.cells import Cells, PromiseError, gather
from understudy.eval.world_model.promise import Promise, believed, promise, worth_recording
from understudy.world_models import gate


def made_up(seed=0, runs=6, each=2, starts=60, repeats=5, dreams=3, follows=1.0, shift=0.8):
    """Policies of several trainings whose success depends on the start; the dream flatters, and `follows` the start."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 2, starts)
    rows = []
    for policy in range(runs * each):
        skill = rng.normal(0, 1.5)
        p = 1 / (1 + np.exp(-(skill - hard)))
        q = 1 / (1 + np.exp(-(skill + shift - follows * hard)))
        dreamt = rng.binomial(dreams, q) / dreams
        rows += [
            (
                policy,
                policy // each,
                ("sim", s),
                rng.binomial(repeats, p[s]) / repeats,
                repeats,
                dreamt[s],
                dreamt.mean(),
            )
            for s in range(starts)
        ]
    part = [np.array([row[i] for row in rows]) for i in (0, 1, 3, 4)]
    dream, names = np.array([row[5:] for row in rows]), tuple(f"p{i}" for i in range(runs * each))
    return Cells(part[0], part[1], [row[2] for row in rows], part[2], part[3], dream, names, ())


def test_true_rates_lie_inside_as_often_as_promised_for_fresh_trainings():
    inside, sides = [], []
    for seed in range(8):
        made, held = promise(made_up(seed), {"model": "m"}, 0.1)
        fresh = made_up(100 + seed)
        low, estimate, high = made.starts(fresh)
        inside.append(((fresh.truth >= low - 1e-9) & (fresh.truth <= high + 1e-9)).mean())
        sure = believed(low, high)
        sides.append(((fresh.truth > 0.5) == (estimate > 0.5))[sure].mean())
        assert 0.8 < held.covered.estimate <= 1 and held.means[1] < held.means[0]
    assert 0.87 < np.mean(inside) < 0.95 and np.mean(sides) > 0.9


def test_a_dream_that_knows_nothing_of_starts_believes_fewer():
    shares = []
    for follows in (1.0, 0.0):
        cells = made_up(follows=follows, repeats=20, dreams=20)
        made, held = promise(cells, {"model": "m"}, 0.1)
        assert held.covered.estimate > 0.8
        shares.append(held.trusted)
    assert shares[1] < 0.6 * shares[0]


def test_the_least_sure_starts_are_named_first():
    cells = made_up(repeats=20, dreams=20)
    low, estimate, high = promise(cells, {"model": "m"}, 0.1)[0].starts(cells)
    sure = believed(low, high)
    named = worth_recording(cells, estimate, sure, 10)
    unsure = [not known for start, known in zip(cells.start, sure, strict=True) if start in named]
    assert len(named) == 10 and np.mean(unsure) > (~sure).mean()


def with_signals(seed=0, **changes):
    """The same, with a sign of flattery in imagined successes among signs that mean nothing."""
    cells = made_up(seed, **changes)
    rng = np.random.default_rng(1000 + seed)
    flattered = np.where(rng.random(len(cells.truth)) < 0.4, 1.0, 0.0)
    truth = np.where(flattered * cells.dream[:, 0] > 0.5, 0.0, cells.truth)
    noise = rng.normal(size=(len(truth), 2))
    signals = np.column_stack([noise[:, 0], flattered + 0.1 * noise[:, 1], rng.normal(size=len(truth))])
    return dataclasses.replace(cells, truth=truth, signals=signals, told=("round_trip", "apart", "margin"))


def test_a_signal_that_tells_is_taken_and_makes_the_promise_narrower():
    cells, fresh = with_signals(repeats=20, dreams=20), with_signals(7, repeats=20, dreams=20)
    plain, held_plain = promise(dataclasses.replace(cells, signals=None, told=()), {"model": "m"}, 0.1)
    made, held = promise(cells, {"model": "m"}, 0.1)
    assert made.signals[0] == "apart" and len(made.signals) <= 2 and plain.signals == ()
    assert held.errors[1] < 0.8 * held.errors[0] and held.trusted > held_plain.trusted
    low, _, high = made.starts(fresh)
    assert ((fresh.truth >= low - 1e-9) & (fresh.truth <= high + 1e-9)).mean() > 0.85
    with pytest.raises(PromiseError, match="signal 'apart', which these dreams did not tell"):
        made.starts(made_up())


def test_signals_that_say_nothing_are_left_out():
    cells = made_up(repeats=20, dreams=20)
    noise = np.random.default_rng(5).normal(size=(len(cells.truth), 3))
    made, held = promise(
        dataclasses.replace(cells, signals=noise, told=("round_trip", "apart", "margin")), {"model": "m"}, 0.1
    )
    assert made.signals == () and held.covered.estimate > 0.8


def test_too_few_trainings_or_starts_promise_nothing():
    with pytest.raises(PromiseError, match="2 trainings"):
        promise(made_up(runs=2), {"model": "m"}, 0.1)
    with pytest.raises(PromiseError, match="too few for alpha"):
        promise(made_up(runs=3, each=1, starts=2), {"model": "m"}, 0.01)
    x, y = np.array([[0.1], [0.2], [0.9], [0.5]]), np.array([0.2, 0.3, 1.0, 0.6])
    assert np.isnan(left_out(x, y, [0, 0, 1, 1])).all()
    assert np.allclose(left_out(x, y, [0, 1, 2, 3]), y)


def record(folder, world, policy, seed, rates, rng, refuse=()):
    manifest = {
        "policy": {"path": f"runs/r{policy // 2}/checkpoints/0000000{policy}", "fingerprint": f"f{policy}"},
        "agent": {"n_action_steps": 8}, "world": world, "starts": {"set": "sim", "count": len(rates)},
    }  # fmt: skip
    with RecordWriter(folder / f"{world['type']}{policy}-{seed}", manifest) as writer:
        for start, rate in enumerate(rates):
            won = bool(rng.random() < rate) and start not in refuse
            labels = {"least_real": 0.9, "apart": 0.3 + 0.1 * rng.random(), "margin": float(rng.normal())}
            error = f"start {start}: {gate.ABSTAINS}: strange" if start in refuse else ""
            writer.add({
                "initial_conditions": "sim", "env_seed": start, "policy_seed": seed, "task": "t", "success": won,
                "first_success": 3 if won else -1, "best_progress": float(won), "final_progress": float(won),
                "return": 0.0,
                "length": 3, "progress": [0.0, 0.0, float(won)], "terminated": won, "truncated": not won,
                "wall_physics": 0.0, "wall_render": 0.0, "wall_policy": 0.0, "attempt": 0, "worker": 0, "video": "",
                "error": error, "labels": json.dumps(labels if not error else {}),
            })  # fmt: skip
        writer.close(complete=True)


def test_calibrate_makes_and_reads_a_promise_and_agree_says_what_truth_agrees_with_itself(tmp_path, capsys):
    rng, run = np.random.default_rng(0), tmp_path / "model"
    (run / "checkpoints" / "00000001").mkdir(parents=True)
    (run / "checkpoints" / "00000001" / "config.json").write_text("{}")
    gate.note(run / "checkpoints" / "00000001", "weights", {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}})
    dream = {"type": "dream", "model": "weights", "config": {"model": str(run / "checkpoints" / "00000001")}}
    hard = rng.normal(0, 2, 40)
    for policy in range(8):
        rates = 1 / (1 + np.exp(hard - policy / 2 + 2))
        record(tmp_path / "dreamt", dream, policy, 0, rates, rng, refuse=(3,))
        for seed in (1, 2):
            record(tmp_path / f"true{seed}", {"type": "sim"}, policy, seed, rates, rng)

    told = [str(tmp_path / "dreamt"), "--truth", str(tmp_path / "true1"), str(tmp_path / "true2")]
    assert main(["calibrate", *told, "--alpha", "0.2", "--out", str(tmp_path / "promise.json")]) == 0
    said = capsys.readouterr().out
    assert "312 starts of policies" in said and "record next     sim 3," in said and "over 2 repeats" in said
    assert "none of apart, unreal, margin foretells more" in said or "of apart, unreal, margin; held out" in said
    reading = ["--promise", str(tmp_path / "promise.json"), "--out", str(tmp_path / "read.json")]
    assert main(["calibrate", str(tmp_path / "dreamt"), *reading]) == 0
    read = json.loads((tmp_path / "read.json").read_text())
    assert len(read["policies"]) == 8 and len(read["starts"]) == 312 and read["record_next"][0] == ["sim", 3]
    assert main(["calibrate", str(tmp_path / "true1"), *reading]) == 2
    assert "not all of one dream" in capsys.readouterr().err

    words = ["agree", "--truth", str(tmp_path / "true1"), "--proxy", str(tmp_path / "dreamt")]
    assert main([*words, "--again", str(tmp_path / "true2"), "--draws", "50"]) == 0
    said = capsys.readouterr().out
    assert "1 start is left out" in said and "p = " in said
    assert "in a second true run" in said and "\nbias " in said and "fitted on other trainings: 0." in said
    assert main([*words, "--again", str(tmp_path / "true1"), "--draws", "50"]) == 2
    assert "--policy_seed" in capsys.readouterr().err


def world_of(folder):
    """A dream whose model may rank, as manifests describe it."""
    checkpoint = folder / "model" / "checkpoints" / "00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    gate.note(checkpoint, "weights", {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}})
    settings = {"success_at": 0.5, "horizon": 100, "starts": {"type": "sim", "versions": {"numpy": "1"}}}
    return {"type": "dream", "model": "weights", "seed": 0, "config": {"model": str(checkpoint)}} | settings


def older(file):
    """A promise as earlier versions wrote it, which said nothing of the dream's settings."""
    return dataclasses.replace(Promise.load(file), world={})


def test_what_is_no_repeat_or_another_dream_is_refused_by_name(tmp_path, capsys):
    """A run counted twice would make the intervals narrow; a promise holds for the dream that it was made of."""
    rng, dream = np.random.default_rng(1), world_of(tmp_path)
    for policy in range(6):
        rates = np.full(20, 0.2 + policy / 10)
        record(tmp_path / "dreamt", dream, policy, 0, rates, rng)
        record(tmp_path / "true", {"type": "sim"}, policy, 0, rates, rng)
        record(tmp_path / "copy", {"type": "sim"}, policy, 0, rates, rng)
        record(tmp_path / "slow", {"type": "sim", "delay": 3}, policy, 2, rates, rng)

    def refused(*words):
        assert main(["calibrate", str(tmp_path / words[0]), *words[1:], "--out", str(tmp_path / "no.json")]) == 2
        return capsys.readouterr().err

    truth = ["--truth", str(tmp_path / "true")]
    assert "no repeat of it" in refused("dreamt", *truth, str(tmp_path / "copy"))
    assert "different worlds: delay is None and 3" in refused("dreamt", *truth, str(tmp_path / "slow"))
    assert "is a dream itself" in refused("dreamt", "--truth", str(tmp_path / "dreamt"))
    assert "--slack" in refused("dreamt", *truth, "--slack", "1")

    made = str(tmp_path / "promise.json")
    assert main(["calibrate", str(tmp_path / "dreamt"), *truth, "--alpha", "0.2", "--out", made]) == 0
    reading = ["--promise", made]
    assert "dreamt with the noise of true runs (policy_seed 0)" in capsys.readouterr().out
    assert "--alpha" in refused("dreamt", *reading, "--alpha", "0.2")
    for name, changes in {
        "easy": {"success_at": 0.2},
        "cut": {"horizon": 50},
        "elsewhere": {"starts": {"type": "sim", "delay": 1}},
    }.items():
        record(tmp_path / name, dream | changes, 0, 0, np.full(20, 0.5), rng)
        assert "other settings" in refused(name, *reading)
    cells, ruled = gather([read_record(tmp_path / "dreamt" / "dream0-0")]), dream | {"judge": "states"}
    for promise_of, said in ((Promise.load(made), "judge is None and states"), (older(made), "an earlier version")):
        promise_of.check(cells, dream)
        with pytest.raises(PromiseError, match=said):
            promise_of.check(cells, ruled)
    record(tmp_path / "mixed", dream, 0, 0, np.full(20, 0.5), rng)
    record(tmp_path / "mixed", dream | {"success_at": 0.2}, 1, 0, np.full(20, 0.5), rng)
    assert "dreams of other settings: success_at" in refused("mixed", *reading)
    for seed in (0, 1):
        record(tmp_path / "twice", dream | {"seed": seed}, 0, seed, np.full(20, 0.5), rng)
    assert "the mean of 1 dream of each start, these records have 2" in refused("twice", *reading)
    newer = dream | {"starts": {"type": "sim", "versions": {"numpy": "2"}}, "batch": 4}
    record(tmp_path / "newer", newer, 0, 0, np.full(20, 0.5), rng)
    assert main(["calibrate", str(tmp_path / "newer"), *reading, "--out", str(tmp_path / "read.json")]) == 0


def test_a_policy_that_plans_by_the_dream_is_not_judged_there(tmp_path):
    rng, dream = np.random.default_rng(2), world_of(tmp_path)
    record(tmp_path / "dreamt", dream, 0, 0, np.full(4, 0.5), rng)
    folder = tmp_path / "dreamt" / "dream0-0"
    refuse_unproven([read_record(folder)])
    for weights, flatters in (("other", False), ("weights", True)):
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["agent"] |= {"critic": "runs/dream/video", "critic_fingerprint": [weights]}
        steered = dataclasses.replace(read_record(folder), manifest=manifest)
        with pytest.raises(DreamGateError, match="chooses its plans") if flatters else nullcontext():
            refuse_unproven([steered])
