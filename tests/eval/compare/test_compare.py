"""`understudy compare`: finished records, live ones that stop, go on and can be scored blindly by a person."""

import json
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.lanes.lanes import open_world
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.compare import live as module
from understudy.eval.compare.blind import BlindStage, Score, ask, blind_order, scored
from understudy.eval.compare.checks import checked_world
from understudy.eval.compare.compare import Compare, compare
from understudy.eval.compare.comparison import _points, compare_records, read_comparison
from understudy.eval.compare.sequential import Rules, fight, meter, say
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.table import COLUMNS, tables_equal
from understudy.eval.results.results import render
from understudy.eval.rollout.rollout import ArmError
from understudy.eval.statistics.by_name import sequential_test
from understudy.eval.statistics.intervals import Interval
from understudy.eval.statistics.sequential import State
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

from ..clocked import ARM, CLOCKED

WORLD = {"type": "point", "horizon": 30}


def row(start, success, progress=None, **changes):
    values = {
        "initial_conditions": "toy",
        "env_seed": start,
        "policy_seed": 0,
        "task": "toy",
        "success": bool(success),
        "length": 3,
    }
    values |= {"first_success": 3 if success else -1, "best_progress": float(success if progress is None else progress)}
    values |= {"final_progress": values["best_progress"], "return": 0.0, "terminated": True}
    values |= {"progress": [0.0, 0.0, values["best_progress"]]}
    values |= {"truncated": False, "attempt": 0, "worker": 0, "video": "", "error": "", "labels": "{}"}
    values |= dict.fromkeys(("wall_physics", "wall_render", "wall_policy"), 0.0)
    assert set(values) == set(COLUMNS)
    return values | changes


def record(folder, rate, n=60, seed=0, first=1000, **manifest):
    """A record of made-up episodes; lower `rate` fails at a superset of starts."""
    luck = np.random.default_rng(seed).random(n)
    told = {"policy": {"path": folder.name}, "starts": {"set": "toy", "first": first, "count": n}}
    with RecordWriter(folder, told | manifest) as writer:
        for i in range(n):
            writer.add(row(first + i, luck[i] < rate, min(1.0, rate / luck[i])))
        writer.close(complete=True)
    return folder


class Lane:
    """Drives to the target when it knows how, at each start with some probability."""

    def __init__(self, skill, seed=0, lanes=8):
        self.skill, self.seed, self.n_action_steps, self.look = skill, seed, 4, (0,)
        self.able, self.obs = np.zeros(lanes), None
        body = SimpleNamespace(check=lambda *_: None, unknown_in_short="")
        self.planner = SimpleNamespace(embodiment=body)
        self.critic = None
        self.inputs, self.pictures = (), {}

    def reset(self, starts, mask, obs):
        luck = np.array([np.random.default_rng((self.seed, max(0, start))).random() for start in starts])
        self.able = np.where(mask, luck < self.skill, self.able)
        self.obs = obs

    def act(self):
        away = self.obs["observation.environment_state"] - self.obs["observation.state"]
        return np.repeat(np.clip(5 * away * self.able[:, None], -1, 1)[:, None], self.n_action_steps, 1)

    def observe(self, obs, sent, valid):
        self.obs = {key: value[:, -1] for key, value in obs.items()}


@pytest.fixture
def lanes_act(monkeypatch):
    """`--what 0.9 0.2` names skills in place of policies; returns what was opened."""
    opened = []

    def open_agent(config: Eval, _embodiment, _task):
        opened.append(config)
        actor = Lane(float(config.policy.rpartition("skill")[2]), config.policy_seed, config.block)
        return actor, {"path": config.policy, "fingerprint": config.policy}

    monkeypatch.setattr(module, "open_agent", open_agent)
    monkeypatch.setattr(
        "understudy.eval.evaluate.evaluate.agent_settings", lambda config, agent: {"policy_seed": config.policy_seed}
    )
    return opened


def sequential(tmp_path, first, second, **changes):
    values = {
        "what": (f"skill{first}", f"skill{second}"),
        "world": WORLD,
        "out": str(tmp_path / "sequential"),
        "max": 64,
    }
    return Compare(**values | {"until_decided": True, "videos": 0} | changes)


# -- records


def test_two_records(tmp_path, capsys):
    folders = record(tmp_path / "strong", 0.9), record(tmp_path / "weak", 0.5)
    Compare(what=tuple(map(str, folders)), out=str(tmp_path / "out")).run()
    text = capsys.readouterr().out
    assert "A succeeds more often than B" in text and "exact McNemar p" in text and "another training seed" in text
    told = read_comparison(tmp_path / "out")
    (difference,) = told["differences"]
    assert difference["n"] == 60 and difference["only_second"] == 0 and difference["p"] < 0.001
    assert difference["success"][2] > difference["success"][1] > difference["success"][0] > 0  # A - B
    assert difference["progress"][1] > 0 and f"A - B is {100 * difference['success'][1]:+.0f} points" in text
    page = (tmp_path / "out/compare.html").read_text()
    assert "first minus second" in page and f"{100 * difference['success'][1]:+.0f} [" in page
    assert "exact McNemar test" in page and "betting test, valid at any time" in page
    assert len(told["episodes"]) == 60 and told["episodes"][0]["env_seed"] == 1000
    assert told["contestants"][0]["success"][1] == pytest.approx(told["contestants"][0]["successes"] / 60)


def test_a_difference_is_the_first_minus_the_second_whoever_leads(tmp_path):
    strong, weak = (read_record(record(tmp_path / name, rate)) for name, rate in (("s", 0.9), ("w", 0.5)))
    for order, sign in (([strong, weak], "+"), ([weak, strong], "-")):
        found = compare_records(order)
        assert f"A - B is {sign}" in found.text() and "B - A" not in found.text()
    peeked = compare_records([weak, strong], sequential={"until_decided": True, "says": "B is better."})
    assert "A - B is -" in peeked.differences[0].says


def test_a_comparison_of_an_earlier_version_opens_with_the_signs_of_today(tmp_path):
    now = compare_records([read_record(record(tmp_path / name, rate)) for name, rate in (("s", 0.9), ("w", 0.5))])
    now.write(tmp_path)
    today, then = read_comparison(tmp_path), json.loads((tmp_path / "compare.json").read_text())
    for one in then["differences"]:
        for key in ("success", "progress"):
            one[key] = [-end for end in reversed(one[key])]
    then |= {"format": 1, "sequential": {"evidence": 0.5, "history": [[8, 0.5]]}}
    then = {name: value for name, value in then.items() if name not in ("sha256", "name")}
    (tmp_path / "compare.json").write_text(json.dumps(then))
    read = read_comparison(tmp_path)
    assert read["differences"] == today["differences"]
    assert read["sequential"] == {"evidence": -0.5, "history": [[8, -0.5]]}


def test_names_that_people_give_are_titles(tmp_path):
    folders = record(tmp_path / "s", 0.9, name="with history"), record(tmp_path / "w", 0.5)
    Compare(what=tuple(map(str, folders)), out=str(tmp_path / "out"), name="Does history help?").run()
    page = (tmp_path / "out/compare.html").read_text()
    assert "<h1>Does history help?</h1>" in page and "with history" in page
    assert read_comparison(tmp_path / "out")["name"] == "Does history help?"


def test_successes_at_reset_are_counted(tmp_path):
    rows = [row(start, True) | {"first_success": 0 if start < 1003 else 3} for start in range(1000, 1010)]
    for name in "ab":
        with RecordWriter(tmp_path / name, {"policy": {"path": name}}) as writer:
            for one in rows:
                writer.add(one)
            writer.close(complete=True)
    found = compare_records([read_record(tmp_path / name) for name in "ab"])
    assert "3 episodes of a had succeeded at reset" in found.text()


def test_equal_records_are_not_called_equal(tmp_path):
    records = [read_record(record(tmp_path / name, 0.5, n=20, seed=seed)) for seed, name in enumerate("xy")]
    text = compare_records(records).text()
    assert "not shown to differ" in text and "no evidence of being equal" in text
    assert "20 pairs show a difference of" in text


def test_three_records_have_letters_and_corrected_p(tmp_path):
    rates = {"good": 0.95, "fair": 0.93, "poor": 0.3}
    records = [read_record(record(tmp_path / name, rate, n=80)) for name, rate in rates.items()]
    found = compare_records(records)
    assert [one.letters for one in found.contestants] == ["a", "a", "b"]
    assert all(one.p_holm >= one.p for one in found.differences) and "Holm over 3" in found.text()


def test_caveats_name_other_worlds_and_missing_starts(tmp_path):
    one = record(tmp_path / "one", 0.5, world={"config": {"type": "a"}})
    two = record(tmp_path / "two", 0.5, first=1010, world={"config": {"type": "b"}})
    caveats = " ".join(compare_records([read_record(one), read_record(two)]).caveats)
    assert "different worlds" in caveats and "20 initial conditions were left out" in caveats


def test_records_of_two_dreams_are_told_and_refused_starts_count_for_nobody(tmp_path):
    """One name, two trainings; and one record made before anybody knew which scenes the model does not know."""
    settings = {"config": {"type": "dream", "model": "run"}, "type": "dream"}
    one = record(tmp_path / "one", 0.5, world=settings | {"model": "f1"})
    two = record(tmp_path / "two", 0.5, world=settings | {"model": "f2", "versions": {"torch": "2"}})
    caveats = " ".join(compare_records([read_record(one), read_record(two)]).caveats)
    assert "different worlds (model is f1 and f2)" in caveats

    told = {"policy": {"path": "late"}, "starts": {"set": "toy", "first": 1000, "count": 60}}
    with RecordWriter(tmp_path / "late", told) as writer:
        for i in range(60):
            lost = {"error": f"start {i}: the dream abstains: strange"} if i < 20 else {}
            writer.add(row(1000 + i, i >= 20, **lost))
        writer.close(complete=True)
    found = compare_records([read_record(record(tmp_path / "early", 1.1)), read_record(tmp_path / "late")])
    assert found.differences[0].n == 40 and found.differences[0].only_first == 0
    assert found.contestants[1].success.estimate == 1 and "20 starts, which were left out" in " ".join(found.caveats)


def test_records_of_a_stopped_comparison_get_no_fixed_n_p_value(tmp_path):
    told = {"sequential": {"until_decided": True}}
    found = compare_records([read_record(record(tmp_path / name, 0.5, **told)) for name in "ab"])
    assert found.differences[0].p is None and "no p-value" in found.text() and "lean towards" in found.text()


def test_records_without_common_starts_or_mixed_with_policies_are_refused(tmp_path):
    one, two = record(tmp_path / "one", 0.5), record(tmp_path / "two", 0.5, first=5000)
    with pytest.raises(ValueError, match="share no initial condition"):
        compare(Compare(what=(str(one), str(two))))
    with pytest.raises(ValueError, match="Compare records with records"):
        compare(Compare(what=(str(one), str(tmp_path))))
    with pytest.raises(FileNotFoundError, match="skill1: there is no such folder"):
        compare(Compare(what=(str(one), "skill1")))


def test_settings_of_policies_are_refused_where_records_are_compared(tmp_path):
    both = str(record(tmp_path / "one", 0.5)), str(record(tmp_path / "two", 0.6))
    Compare(what=both, alpha=0.1, name="which", env_seed=1000, out=str(tmp_path / "out")).check_names()
    for flag, value in (("max", 20), ("until_decided", True), ("operator", "anna"), ("resume", str(tmp_path))):
        with pytest.raises(ValueError, match=f"--{flag} is of policies, and these are records: leave it out"):
            Compare(what=both, **{flag: value}).check_names()


# -- the live comparison


def test_a_clear_comparison_stops_early_with_two_records(lanes_act, tmp_path, capsys):
    sequential(tmp_path, 0.05, 0.95, videos=1).run()
    text = capsys.readouterr().out
    assert "B is better than A" in text and "8/64 pairs" in text
    told = read_comparison(tmp_path / "sequential")["sequential"]
    assert told["decision"] == "B" and told["pairs"] < 24 and told["history"][-1][1] == -1.0
    assert told["fixed_pairs"] > 0 and sum(told["counts"]) == told["pairs"]
    for side in "ab":
        kept = read_record(tmp_path / "sequential" / side)
        assert kept.manifest["complete"] and len(kept.table) % 8 == 0 and (kept.root / "report.html").is_file()
        assert kept.manifest["starts"]["count"] == len(kept.table)
        assert [row["env_seed"] for row in kept.table.to_pylist() if row["video"]] == [1000]
    assert (tmp_path / "sequential" / "compare.html").read_text().count("<video ") == 2


def test_a_committed_comparison_is_among_the_results(lanes_act, tmp_path):
    compare(sequential(tmp_path, 0.05, 0.95))
    text = render(tmp_path)["docs/results/records.md"]
    assert "## sequential" in text and "skill0.95" in text


def test_equal_policies_with_other_noise_are_not_decided(lanes_act, tmp_path):
    found = compare(sequential(tmp_path, 0.5, 0.5, other_seed=1, max=48, give_up=0.3))
    assert found.sequential["decision"] in ("hopeless", "undecided")
    assert "no evidence of being equal" in found.text()


def test_a_stopped_comparison_goes_on_to_the_same_end(lanes_act, tmp_path, monkeypatch, capsys):
    whole = compare(sequential(tmp_path, 0.3, 0.7, out=str(tmp_path / "whole")))
    add = RecordWriter.add

    def interrupted(self, row):
        if len(self.rows) == 11 and self.root.name == "b":
            raise KeyboardInterrupt
        add(self, row)

    monkeypatch.setattr(RecordWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(sequential(tmp_path, 0.3, 0.7))
    monkeypatch.setattr(RecordWriter, "add", add)
    assert "Go on with --resume" in capsys.readouterr().err
    assert [len(read_record(tmp_path / "sequential" / side).table) for side in "ab"] == [16, 11]
    assert read_comparison(tmp_path / "sequential")["sequential"]["decision"] is None
    with pytest.raises(ValueError, match="begun with other rules"):
        compare(sequential(tmp_path, 0.3, 0.7, out=None, resume=str(tmp_path / "sequential"), on="progress"))
    resumed = compare(sequential(tmp_path, 0.3, 0.7, out=None, resume=str(tmp_path / "sequential")))
    assert resumed.sequential == whole.sequential | {"history": resumed.sequential["history"]}
    assert resumed.sequential["history"] == whole.sequential["history"] and resumed.episodes == whole.episodes
    with pytest.raises(ValueError, match="has ended"):
        compare(sequential(tmp_path, 0.3, 0.7, out=None, resume=str(tmp_path / "sequential")))


@pytest.mark.parametrize("until_decided", [True, False])
def test_by_the_clock_it_is_looked_after_every_pair(lanes_act, tmp_path, until_decided):
    """Eight pairs were played before a look, and each costs minutes on an arm; the verdict falls at the same one."""
    rules = {"until_decided": until_decided, "max": 24}
    found = compare(sequential(tmp_path, 0.05, 0.95, world=CLOCKED | {"horizon": 30}, **rules)).sequential
    blocks = compare(sequential(tmp_path, 0.05, 0.95, out=str(tmp_path / "blocks"), **rules)).sequential
    assert [pairs for pairs, _ in found["history"]] == list(range(1, found["pairs"] + 1))
    assert {config.block for config in lanes_act[:2]} == {1}
    assert (found["decision"], found["pairs"]) == (blocks["decision"], blocks["pairs"])
    kept = [len(read_record(tmp_path / "sequential" / side).table) for side in "ab"]
    assert kept == [found["pairs"]] * 2 and found["decision"] == "B"


@pytest.mark.parametrize(
    ("world", "changes", "message"),
    [
        (ARM, {"workers": 1}, "there is one arm"),
        (CLOCKED, {"workers": 4}, "--workers 4: this world goes by the clock"),
        (CLOCKED, {"videos": 2}, "--videos 2: a film plays an episode again"),
        (CLOCKED, {"block": 4}, "--block 4: one environment acts at a time"),
    ],
)
def test_what_goes_not_by_the_clock_is_refused_before_anything_is_written(lanes_act, tmp_path, world, changes, message):
    config = sequential(tmp_path, 0.3, 0.7, world=world, **changes)
    for refuse in (compare, lambda config: checked_world(config, world)):
        with pytest.raises(ValueError, match=message):
            refuse(config)
    assert not (tmp_path / "sequential").exists()


def test_an_arm_that_fails_ends_a_comparison_that_goes_on_when_asked(lanes_act, tmp_path):
    fault = {"start": 1004, "step": 2, "once": str(tmp_path / "once")}
    world = ARM | {"horizon": 30, "faults": [fault]}
    whole = compare(sequential(tmp_path, 0.3, 0.7, world=world | {"faults": []}, out=str(tmp_path / "whole"), max=8))
    with pytest.raises(ArmError, match=r"env seed 1004 failed: .*; 4 and 4 episodes are kept; .*--resume .*sequential"):
        compare(sequential(tmp_path, 0.3, 0.7, world=world, max=8))
    kept = [read_record(tmp_path / "sequential" / side) for side in "ab"]
    assert [len(one.table) for one in kept] == [4, 4] and not any(one.manifest["complete"] for one in kept)
    resumed = compare(sequential(tmp_path, 0.3, 0.7, world=world, out=None, resume=str(kept[0].root.parent), max=8))
    assert resumed.episodes == whole.episodes and resumed.sequential["history"] == whole.sequential["history"]


def test_a_fixed_number_is_run_whole_and_then_judged(lanes_act, tmp_path):
    found = compare(sequential(tmp_path, 0.05, 0.95, until_decided=False, max=32))
    assert found.sequential["pairs"] == 32 and "All 32 planned pairs" in found.text()
    assert found.differences[0].p_holm < 0.05 and "B succeeds more often" in found.text()


def test_the_table_gives_each_policy_its_own_starts(lanes_act, tmp_path):
    found = compare(sequential(tmp_path, 0.05, 0.95, test="table", max=40))
    assert found.sequential["decision"] == "B" and found.differences == ()
    starts = [read_record(tmp_path / "sequential" / side).column("env_seed")[0] for side in "ab"]
    assert starts == [1000, 1040] and lanes_act[1].env_seed == 1040


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": ("skill1", "skill1")}, "give --other_seed"),
        ({"what": ("skill1", "skill2", "skill3")}, "between two policies"),
        ({"out": None}, "give --out DIR"),
        ({"test": "table", "on": "progress"}, "table is for success"),
        ({"on": "succes"}, "Did you mean 'success'"),
        ({"test": "bet"}, "Known: betting, table"),
        ({"give_up": 1.5}, "share of futures"),
        ({"max": 0}, "--max and --block"),
    ],
)
def test_what_is_no_comparison_is_refused(lanes_act, tmp_path, changes, message):
    with pytest.raises((ValueError, LookupError), match=message):
        compare(sequential(tmp_path, 0.1, 0.9, **changes))
    assert not (tmp_path / "sequential").exists()


def test_the_verb_names_what_is_missing(capsys):
    assert main(["compare", "only-one"]) == 2
    assert "at least two" in capsys.readouterr().err


# -- scored by a person


def test_order_is_blind_balanced_and_repeatable():
    orders = [blind_order(3, start) for start in range(400)]
    assert orders == [blind_order(3, start) for start in range(400)]
    assert 150 < sum(order == (0, 1) for order in orders) < 250


def test_a_person_scores_without_knowing_who_acts(tmp_path):
    shown, acted = [], []

    def act(who):
        return lambda start: acted.append(who) or row(start, success=False)

    def score(trial, seen):
        shown.append((trial, sorted(seen)))
        return Score(acted[-1] == 1, note="held")

    manifest = {"starts": {"set": "toy", "first": 0, "count": 30}}
    with RecordWriter(tmp_path / "a", manifest) as a, RecordWriter(tmp_path / "b", manifest) as b:
        stage = BlindStage((act(0), act(1)), (a, b), score, seed=1, operator="Q")
        *_, end = fight(stage, range(30), sequential_test("betting", 30), Rules(), block=4)
    assert end.decision == "B" and [trial for trial, _ in shown] == list(range(1, len(shown) + 1))
    assert 0 in acted[::2] and 1 in acted[::2]  # neither always begins
    labels = json.loads(read_record(tmp_path / "b").column("labels")[0])
    assert labels["operator"] == "Q" and labels["note"] == "held" and labels["measured"]["success"] is False


def test_a_trial_may_be_done_again(tmp_path):
    answers = iter([None, Score(True), Score(False)])
    with RecordWriter(tmp_path / "a", {}) as a, RecordWriter(tmp_path / "b", {}) as b:
        acts = tuple(lambda start: row(start, False) for _ in range(2))
        list(BlindStage(acts, (a, b), lambda trial, seen: next(answers)).play([7]))
        times = [json.loads(writer.rows[7]["labels"])["times"] for writer in (a, b)]
    assert sorted(times) == [1, 2]


def test_asking_at_the_terminal():
    said = []
    for words, wanted in (
        (["y slipped first"], Score(True, None, "slipped first")),
        (["maybe", "", "n"], Score(False)),
        (["101", "40"], Score(False, 0.4)),
        (["100"], Score(True, 1.0)),
        (["r"], None),
    ):
        answers = list(words)
        assert ask(3, row(0, False), lambda prompt, left=answers: left.pop(0), said.append) == wanted
    assert len(said) == 3
    ask(4, row(0, False, error="camera lost"), lambda prompt: "n", said.append)
    assert "camera lost" in said[-1]


def test_scores_replace_what_the_world_measured():
    kept = scored(row(5, True), Score(False, 0.3), place=1)
    assert not kept["success"] and kept["first_success"] == -1 and kept["best_progress"] == 0.3
    assert json.loads(kept["labels"])["measured"]["success"] is True


def test_an_operator_scores_a_comparison_in_a_world(lanes_act, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "ask", lambda trial, seen: Score(bool(seen["success"])))
    found = compare(sequential(tmp_path, 0.0, 1.0, operator="Q", max=24))
    assert found.sequential["decision"] == "B" and lanes_act[0].block == 1
    shown = capsys.readouterr().out
    assert "100 % of the evidence needed" in shown and "A [" not in shown  # no side is told while trials are scored
    assert json.loads(read_record(tmp_path / "sequential" / "a").column("labels")[0])["operator"] == "Q"


# -- pieces


def test_meter_and_words():
    state = State(10, None, 0.5, 0.1)
    assert (
        state.evidence == -0.5 and meter(state).count("=") == 12 and meter(state).index("=") < meter(state).index("|")
    )
    test = sequential_test("betting", 30)
    *_, end = fight(
        SimpleNamespace(play=lambda starts: ((row(s, 1), row(s, 1)) for s in starts)), range(30), test, Rules()
    )
    assert "Given up after" in say(end, Rules(), test) or "Not decided" in say(end, Rules(), test)


def test_the_skills_of_this_file_act(tmp_path):
    from understudy.eval.rollout.rollout import rollout

    with closing(open_world(WORLD, 8)) as lanes:
        rates = [np.mean([r.row["success"] for r in rollout(Lane(s), lanes, range(16))]) for s in (0.0, 1.0)]
    assert rates[0] < 0.3 and rates[1] > 0.9


def test_workers_that_play_ahead_change_no_record(tmp_path):
    """Two workers play the next block while the verdict falls; what it does not ask for is in no record."""
    import torch

    body, network = read_world("point").embodiment(), MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=4)
    for seed, name in enumerate("xy"):
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / name, config.build(body, blank_scales(body)), kind="policy", config=config)

    told = []
    for workers in (0, 2):
        out = tmp_path / f"workers{workers}"
        common = {"what": (str(tmp_path / "x"), str(tmp_path / "y")), "world": WORLD, "out": str(out), "max": 40}
        compare(Compare(**common, block=4, until_decided=True, on="progress", videos=1, workers=workers))
        tables = [read_record(out / side).table for side in "ab"]
        told.append((read_comparison(out)["sequential"], tables))
    (one, ours), (two, theirs) = told
    assert one == two and all(tables_equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert sum(map(bool, theirs[0]["video"].to_pylist())) == 1


def test_no_difference_has_no_sign():
    assert _points(Interval(-0.02, -0.001, 0.004)) == "0 points [-2, 0]"
    assert _points(Interval(-0.1, 0.0, 0.1)) == "0 points [-10, +10]"
