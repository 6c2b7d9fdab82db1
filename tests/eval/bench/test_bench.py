"""The benches really compare equals, and say what they measured."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from understudy.eval.bench import learn as bench_learn
from understudy.eval.bench import loader as bench_loader
from understudy.eval.bench import policy as bench_policy
from understudy.eval.bench import stages as bench_stages
from understudy.eval.bench.data import write_dataset
from understudy.eval.bench.policy import Contender, Size, equal_network, our_policy, race

TINY = Size(channels=(16, 32, 64), batch=4)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("bench") / "data", episodes=5, frames=400)


def test_the_made_up_dataset_has_the_asked_size(made_up):
    from understudy.policies.data.open import open_dataset

    dataset = open_dataset(made_up)
    assert len(dataset) == 400 and len(dataset.lengths) == 5
    assert {key: value.shape[1] for key, value in dataset.columns.items()}["observation.environment_state"] == 16


def test_our_loader_counts_windows_of_a_process_of_its_own(made_up):
    side = bench_loader._in_process("ours", made_up, 0.05)
    assert side["windows"] == 400 and side["peak_mib"] >= side["imports_mib"] > 10
    assert [row["batch"] for row in side["rates"]] == list(bench_loader.BATCHES)
    assert all(row["per_second"] > 1000 for row in side["rates"])


def test_a_loader_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="loader 'ours' failed: .*nothing_here"):
        bench_loader._in_process("ours", tmp_path / "nothing_here", 0.05)


def test_loader_table_gives_both_ratios():
    row = {"batch": 64, "per_second": 2000.0, "per_cpu_second": 2000.0}
    side = {"keys": ["observation.state"], "windows": 9, "rates": [row], "imports_mib": 1.0, "peak_mib": 2.0}
    text = bench_loader.table({"ours": side, "lerobot": side, "ratio": 1.0, "best_ratio": 1.0})
    assert "9 windows of observation.state" in text and "ratio 1 at batch 64" in text


def test_measure_counts_what_the_steps_gave():
    rates = bench_loader.measure(lambda: 10, 0.02)
    assert rates["per_second"] > 1000 and rates["per_cpu_second"] > 1000


def test_race_alternates_and_takes_the_median():
    order = []
    first = Contender("a", 1, lambda: order.append("a"))
    second = Contender("b", 2, lambda: order.append("b"))
    result = race(first, second, pairs=3, seconds=0.0)
    assert "".join(order[-6:]) == "abbaab"
    assert len(result["ratios"]) == 3 and result["ratio"] == sorted(result["ratios"])[1]
    assert [side["name"] for side in result["sides"]] == ["a", "b"]


def test_equal_networks_have_equally_many_weights():
    pytest.importorskip("lerobot", reason="the peer is lerobot")
    ours, theirs = our_policy(TINY, equal_network(TINY)), bench_policy.lerobot_policy(TINY)
    assert bench_policy._count(ours) == bench_policy._count(theirs)


def test_equal_encoders_read_equal_pictures(tmp_path):
    pytest.importorskip("lerobot", reason="the peer is lerobot")
    size = dataclasses.replace(TINY, pictures=32)
    ours, theirs = our_policy(size, equal_network(size)), bench_policy.lerobot_policy(size)
    assert bench_policy._count(ours) == bench_policy._count(theirs)
    batch = bench_policy._batch(size)
    seen = bench_policy.for_lerobot(size, batch)[bench_policy.TOP]
    assert seen.shape == (4, 2, 3, 32, 32) and 0 <= float(seen.min()) < float(seen.max()) <= 1
    assert np.array_equal((seen * 255).round().byte().movedim(-3, -1), batch[bench_policy.TOP])
    assert bench_policy.our_latency(size, equal_network(size)).work().future.shape[2] == size.horizon
    assert bench_policy.lerobot_latency(size).work().shape[0] == 1
    bench_policy.lerobot_training(size).work()
    assert bench_policy.our_training(size, equal_network(size), tmp_path / "run").work()["loss"] > 0


def test_kept_embeddings_and_whole_pictures_train_the_same_head(tmp_path):
    context = bench_stages.Context(frames=3, pictures=32, batch=2)
    sides = [bench_stages.step(context, kept, tmp_path / str(kept)) for kept in (True, False)]
    assert sides[0].parameters == sides[1].parameters
    assert all(side.work()["loss"] > 0 for side in sides)
    race = {"sides": [{"name": s.name, "ms": ms} for s, ms in zip(sides, (1.0, 12.0), strict=True)]}
    race |= {"ratios": [0.1, 0.2], "ratio": 0.1, "cpu_ratio": 0.125, "context": 3, "pictures": 32, "batch": 2}
    race |= {"peak_mib": {"embeddings": 1.0, "end to end": 2.0}}
    assert "end to end takes 10 times as long (8 in CPU time)" in bench_stages.table(race)


def test_time_to_equal_held_out_loss_is_of_the_peers_best():
    ours, theirs = (bench_learn.Side(name, lambda: None, lambda: 1.0) for name in ("understudy", "lerobot"))
    ours.curve = [(1.0, 1, 0.5), (2.0, 2, 0.3), (3.0, 3, 0.2)]
    theirs.curve = [(1.0, 1, 0.9), (8.0, 2, 0.3), (9.0, 3, 0.4)]
    verdict = bench_learn._verdict(ours, theirs)
    assert (verdict["loss"], verdict["lerobot_s"], verdict["ours_s"], verdict["ratio"]) == (0.3, 8.0, 2.0, 4.0)
    ours.curve = [(1.0, 1, 0.5)]
    assert bench_learn._verdict(ours, theirs)["ratio"] is None
    about = {"data": "demos", "batch": 4, "pictures": 32, "noise_draws": 4}
    assert "ours never" in bench_learn.table(bench_learn._verdict(ours, theirs) | about)


def test_ours_waits_while_it_is_ahead():
    losses = iter([0.8, 0.5, 0.2]), iter([0.9, 0.6, 0.4, 0.3])
    ours, theirs = (
        bench_learn.Side(name, lambda: None, lambda of=of: next(of))
        for name, of in zip(("understudy", "lerobot"), losses, strict=True)
    )
    bench_learn.take_turns(ours, theirs, 4, 0.001)
    assert [loss for _, _, loss in ours.curve] == [0.8, 0.5, 0.2] and len(theirs.curve) == 4
    assert bench_learn._verdict(ours, theirs)["ours_s"] == ours.curve[2][0]


def test_both_sides_are_measured_by_the_same_noise():
    """A side that predicts the noise itself has no error, at levels that both are trained at."""
    chunks = torch.randn(6, 16, 2)

    def oracle(noisy, levels, scaled):
        assert bool((((1 - levels) / levels).sqrt() <= 64).all())
        return (noisy - levels.sqrt()[:, None, None] * scaled) / (1 - levels).sqrt()[:, None, None]

    pytest.importorskip("diffusers", reason="the noise levels are lerobot's")
    assert bench_learn.noise_error(oracle, chunks) < 1e-6


def test_both_sides_train_and_plan(tmp_path):
    pytest.importorskip("lerobot", reason="the peer is lerobot")
    before = torch.get_rng_state()
    sides = [
        bench_policy.our_training(TINY, equal_network(TINY), tmp_path / "run"),
        bench_policy.lerobot_training(TINY),
    ]
    assert sides[0].work()["loss"] > 0
    sides[1].work()
    plans = bench_policy.our_latency(TINY, None).work()
    chunk = bench_policy.lerobot_latency(TINY).work()
    assert plans.future.shape == (1, 1, 16, 2) and chunk.shape[::2] == (1, 2)
    assert np.isfinite(plans.future.numpy()).all() and torch.isfinite(chunk).all()
    torch.set_rng_state(before)


def test_unknown_bench_names_the_known(command):
    status, _, err = command("bench", "lodaer")
    assert status == 2 and "Did you mean 'loader'?" in err and "latency" in err


def test_the_machine_is_described_without_its_name():
    from understudy.eval.bench.settings import describe_machine

    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["torch"].startswith("2.")
    assert "node" not in json.dumps(machine)


def test_the_report_of_a_made_up_record_is_measured():
    from understudy.eval.bench import report as bench_report

    told = bench_report.measure(3)
    assert told["seconds"] > 0 and told["peak_mib"] >= told["before_mib"] > 0 and told["report_mib"] > 0.01
    assert "3 episodes" in bench_report.table({"3": told})


def test_a_flag_that_a_bench_does_not_read_is_refused(command):
    for words, why in (
        (("report", "--seconds", "3"), "`bench report` does not read --seconds; it reads no other flag than --out"),
        (("loader", "--pairs", "3"), "does not read --pairs; it reads --data, --seconds"),
        (("all", "--seconds", "1"), "does not read --seconds; it reads --again, --busy, --quick"),
        (("train", "--quick", "true"), "does not read --quick"),
    ):
        status, _, err = command("bench", *words)
        assert status == 2 and why in err


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "latency"])
def test_ours_is_at_least_as_fast(what):
    compare = {"train": bench_policy.compare_training, "latency": bench_policy.compare_latency}[what]
    result = compare(dataclasses.replace(Size()), pairs=9, seconds=0.5)
    assert result["equal network"]["ratio"] <= 1.05
    if what == "latency":
        assert result["equal network, one step"]["ratio"] <= 1 / 8


def test_a_former_flag_is_read_as_todays():
    from understudy.configs.parse import parse
    from understudy.eval.bench.bench import Bench
    from understudy.eval.studies.search_cost import SearchCost

    assert parse(Bench, None, ["latency", "--lanes", "4"]).observations == 4
    assert parse(SearchCost, None, ["--out", "x.json", "--starts", "30"]).initial_conditions == 30


@pytest.mark.slow
def test_both_policy_servers_are_asked(lerobot):
    pytest.importorskip("websockets", reason="the policy server: pip install 'understudy[serve]'")
    pytest.importorskip("grpc", reason="lerobot's server: pip install 'lerobot[async]'")
    from understudy.eval.bench.serve import compare_servers, table

    result = compare_servers(0.3, 2)
    assert result.keys() == {"state", "two cameras"}
    for sides in result.values():
        assert min(side["n"] for name, side in sides.items() if "ratio" not in name) >= 2
        low, ratio, high = sides["ratio"]["understudy"]
        assert 0 < low <= ratio <= high
    assert "two cameras, understudy, jpeg" in table(result)
