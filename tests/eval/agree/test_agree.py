"""`understudy agree` on made-up records of two worlds: what it matches, what it says, and when it refuses to rank."""

import json
import re

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.eval.agree.agree import NUMBERS, PAGE, render
from understudy.eval.agree.verdict import agree
from understudy.eval.ledger.identity import MatchError, by_policy, identify, matched, open_records
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.ledger.study import read_study

GOOD = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


def write(folder, rate, *, world="sim", name="p", first=0, n=60, seed=0, set_name="sim/point", more=None, **policy):
    """A record in which about a share `rate` of the starts succeed; harder starts fail first."""
    about = {"path": f"runs/{name}/checkpoints/00000100", "fingerprint": f"hash-{name}"} | policy
    manifest = {
        "policy": about,
        "agent": {"n_action_steps": 8, "candidates": 1, "critic": None, "sampler": None, "policy_seed": seed},
        "world": {"type": world, "task": "point", "versions": {"x": world}} | dict(more or {}),
        "starts": {"set": set_name, "count": n},
    }
    rng = np.random.default_rng([seed, len(name), first, round(1000 * rate), ord(world[0])])
    with RecordWriter(folder / f"{world}-{name}-{first}", manifest) as writer:
        for start in range(first, first + n):
            won = bool(rng.random() < rate)
            best = 1.0 if won else float(0.6 * rng.random())
            writer.add({
                "initial_conditions": set_name, "env_seed": start, "policy_seed": seed, "task": "point", "success": won,
                "first_success": 3 if won else -1, "best_progress": best,
                "final_progress": best, "return": 0.0, "length": 3, "progress": [0.0, 0.0, best], "terminated": won,
                "truncated": not won, "wall_physics": 0.0, "wall_render": 0.0, "wall_policy": 0.0, "attempt": 0,
                "worker": 0, "video": "", "error": "", "labels": "{}",
            })  # fmt: skip
        return writer.close(complete=True)


def worlds(folder, rates, proxy_rates, **settings):
    """Records of as many policies in both worlds."""
    truth = [write(folder, rate, name=f"p{i}", seed=i, **settings) for i, rate in enumerate(rates)]
    proxy = [write(folder, rate, name=f"p{i}", seed=i, world="dream", **settings) for i, rate in enumerate(proxy_rates)]
    return truth, proxy


def judged(folder, rates, proxy_rates, by="success", **settings):
    return agree(matched(*worlds(folder, rates, proxy_rates, **settings)), by, np.random.default_rng(0), draws=500)


def test_policies_may_look_through_other_cameras_in_the_same_world(tmp_path):
    """One reads states, one pictures: what happens in the world is the same."""
    looked = [{"cameras": cameras, "config": {"cameras": cameras, "delay": 0}} for cameras in ({}, {"top": [96, 96]})]
    records = [write(tmp_path, 0.5, name=f"p{i}", more=more) for i, more in enumerate(looked)]
    assert len(by_policy(records, "truth")) == 2
    slow = write(tmp_path, 0.5, name="slow", more={"cameras": {}, "config": {"cameras": {}, "delay": 3}})
    with pytest.raises(MatchError, match="config.delay is 0 and 3"):
        by_policy([*records, slow], "truth")
    more = {"cameras": {"top": [48, 48]}, "config": {"cameras": {"top": [48, 48]}, "delay": 0}}
    with pytest.raises(MatchError, match="cameras.top is"):  # one policy sees otherwise, and does
        by_policy([*records, write(tmp_path, 0.5, name="p1", first=60, more=more)], "truth")


def test_a_faithful_proxy_is_established_and_ranks(tmp_path):
    found = judged(tmp_path, GOOD, GOOD)
    assert found.verdict.established and found.measures["r"].estimate > 0.9 and found.measures["mmrv"].estimate < 0.1
    names = [name for name, _ in found.verdict.ranking]
    assert names[0] == "runs/p6/checkpoints/00000100" and names[-1] == "runs/p0/checkpoints/00000100"
    best, worst = found.verdict.ranking[0][1], found.verdict.ranking[-1][1]
    assert "a" in best and not set(best) & set(worst)
    assert found.ceiling.low <= found.measures["r"].estimate + 0.1 and found.ceiling.high <= 1
    assert [point.n_truth for point in found.points] == [60] * 7 and not found.verdict.warnings
    assert judged(tmp_path / "progress", GOOD, GOOD, by="progress").verdict.established


def test_an_unrelated_proxy_gets_no_ranking(tmp_path):
    found = judged(tmp_path, GOOD, (0.5, 0.8, 0.2, 0.65, 0.3, 0.5, 0.4))
    assert not found.verdict.established and found.verdict.ranking == ()
    assert "not established" in found.verdict.words[0] and any("by chance" in one for one in found.verdict.words)


def test_an_inverted_proxy_gets_no_ranking(tmp_path):
    found = judged(tmp_path, GOOD, GOOD[::-1])
    assert not found.verdict.established and found.measures["rho"].estimate < -0.9 and found.bound.p > 0.9
    assert found.measures["mmrv"].estimate > 0.5


def test_three_policies_can_show_nothing(tmp_path):
    found = judged(tmp_path, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9))
    assert not found.verdict.established and "even a perfect order has p = 0.17" in found.verdict.words[1]


def test_four_policies_can_with_a_warning(tmp_path):
    found = judged(tmp_path, (0.05, 0.35, 0.65, 0.95), (0.05, 0.35, 0.65, 0.95))
    assert found.verdict.established and found.bound.p == pytest.approx(1 / 24)
    assert np.isnan(found.measures["r"].low) and found.measures["r"].estimate > 0.9
    assert "4 policies are too few for intervals" in found.verdict.warnings[0]


def test_policies_that_do_not_differ_cannot_be_ranked(tmp_path):
    truth = [write(tmp_path, 0.5, name=f"p{i}") for i in range(6)]  # with one seed: the same outcomes
    proxy = [write(tmp_path, rate, name=f"p{i}", world="dream") for i, rate in enumerate(GOOD[:6])]
    found = agree(matched(truth, proxy), "success", np.random.default_rng(0), draws=100)
    assert not found.verdict.established and np.isnan(found.ceiling.estimate)
    assert "One world gives all policies the same rate. In the truth" in " ".join(found.verdict.words)


def test_checkpoints_of_one_run_are_not_independent(tmp_path):
    records = [], []
    for side, world in zip(records, ("sim", "dream"), strict=True):
        for i, rate in enumerate(GOOD):
            path = f"runs/one/checkpoints/{i:08d}"
            side.append(write(tmp_path, rate, world=world, name=f"p{i}", seed=i, path=path))
    found = agree(matched(*records), "success", np.random.default_rng(0), draws=200)
    assert "checkpoints of one training run" in found.verdict.warnings[0]
    assert "hold for these policies" in found.verdict.warnings[1]


def test_the_judge_counts_starts_with_equal_outcomes(tmp_path):
    truth, proxy = worlds(tmp_path, (0.3, 0.9), (0.4, 0.9))
    found = agree(matched(truth, proxy), "success", np.random.default_rng(0), draws=100).judged
    ours, theirs = ([won for record in side for won in record.column("success")] for side in (truth, proxy))
    equal = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    assert found.accuracy.estimate == pytest.approx(equal) and (found.episodes, found.starts) == (120, 60)
    assert found.accuracy.low < equal < found.accuracy.high
    assert found.true_positive + found.false_positive == sum(theirs)
    assert found.true_positive + found.false_negative == sum(ours)
    assert found.kappa == pytest.approx((equal - found.chance) / (1 - found.chance))


def test_worlds_without_common_starts_have_no_judge(tmp_path):
    truth = [write(tmp_path, 0.5, name=f"p{i}") for i in range(2)]
    proxy = [write(tmp_path, 0.5, name=f"p{i}", world="dream", set_name="dream/own") for i in range(2)]
    assert agree(matched(truth, proxy), "success", np.random.default_rng(0), draws=50).judged is None


def test_policies_without_a_partner_are_named(tmp_path):
    truth, proxy = worlds(tmp_path, (0.2, 0.5), (0.2, 0.5))
    with pytest.raises(MatchError, match="runs/p1/.* is not among the proxy records"):
        matched(truth, proxy[:1])
    with pytest.raises(MatchError, match="runs/p0/.* is not among the truth records"):
        matched(truth[1:], proxy)
    proxy[0].manifest["agent"]["n_action_steps"] = 4
    with pytest.raises(MatchError, match="the same weights acted there with n_action_steps 8 against 4"):
        matched(truth, proxy)
    proxy[0].manifest["agent"] |= {"n_action_steps": 8, "critic_fingerprint": ["anew"]}  # at the same path
    with pytest.raises(MatchError, match="critic_fingerprint None against"):
        matched(truth, proxy)


def test_what_identifies_a_policy():
    agent = {"n_action_steps": 8, "candidates": 1, "critic": None, "policy_seed": 3, "block": 8}
    one = identify({"policy": {"path": "a/checkpoints/7", "fingerprint": "x"}, "agent": agent})
    other = identify(
        {"policy": {"path": "moved/best", "fingerprint": "x"}, "agent": agent | {"policy_seed": 4, "block": 2}}
    )
    assert (one.weights, one.acts) == (other.weights, other.acts) and (one.run, other.run) == ("a", "moved")
    best_of = identify({"policy": {"path": "a", "fingerprint": "x"}, "agent": agent | {"candidates": 16}})
    assert best_of.acts != one.acts and best_of.name == "a, best of 16"
    assert identify({"policy": {"path": "scripted"}}).weights == "scripted"
    with pytest.raises(MatchError, match="nobody knows who acted"):
        identify({"policy": {}})


def test_records_of_a_policy_are_put_together_unless_they_overlap(tmp_path):
    records = [write(tmp_path, 0.5), write(tmp_path, 0.5, first=60)]
    (tested,) = by_policy(records, "truth").values()
    assert len(tested.episodes) == 120 and len(tested.records) == 2
    with pytest.raises(MatchError, match="both hold initial condition sim/point/30"):
        by_policy([records[0], write(tmp_path, 0.5, first=30)], "truth")
    with pytest.raises(MatchError, match="the truth records .* are of different worlds: type is sim and dream"):
        by_policy([records[0], write(tmp_path, 0.5, world="dream", name="q")], "truth")


def test_the_command_writes_text_numbers_and_page(tmp_path, capsys):
    truth, proxy = worlds(tmp_path / "records", GOOD, GOOD)
    words = ["agree", "--truth", *(str(record.root) for record in truth)]
    words += ["--proxy", *(str(record.root) for record in proxy), "--draws", "300", "--out", str(tmp_path / "out")]
    study = tmp_path / "study.json"
    assert main([*words, "--study", str(study)]) == 0
    assert len(read_study(study).rows) == 7 and "--draws 300" in read_study(study).command
    said = capsys.readouterr().out
    assert "The proxy orders these 7 policies as the truth does" in said and "Spearman rho" in said
    numbers = json.loads((tmp_path / "out" / NUMBERS).read_text())
    assert numbers["verdict"]["established"] is True and len(numbers["points"]) == 7
    assert numbers["measures"]["r"]["low"] < numbers["measures"]["r"]["estimate"]
    html = (tmp_path / "out" / PAGE).read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "http:" not in html and "https:" not in html
    assert html.count("<circle") == 7 and html.count('class="bar a"') == 14
    assert not re.search(r"\bnan\b", html)
    assert main(words) == 2 and "exists" in capsys.readouterr().err
    same = [str(truth[0].root), str(truth[1].root)]
    assert main(["agree", "--truth", *same, "--proxy", *same]) == 2
    assert "is on both sides" in capsys.readouterr().err


@pytest.mark.parametrize(("twin", "said"), [("offline", True), ({"offline": True, "identity": {}}, True), ({}, False)])
def test_a_twin_that_nothing_follows_is_told_from_what_it_is_a_twin_of(twin, said, tmp_path, capsys):
    """Its record agrees with the simulator's perfectly, and says nothing of an arm."""
    truth = [write(tmp_path / "a", rate, name=f"p{i}", more={"twin": twin}) for i, rate in enumerate(GOOD[:4])]
    proxy = [write(tmp_path / "b", rate, name=f"p{i}") for i, rate in enumerate(GOOD[:4])]
    words = ["agree", "--truth", *(str(one.root) for one in truth), "--proxy", *(str(one.root) for one in proxy)]
    assert main([*words, "--draws", "50"]) == 0
    assert ("are of one world, sim/point" in capsys.readouterr().out) == said


def test_undefined_numbers_are_null_and_said(tmp_path, capsys):
    truth, proxy = worlds(tmp_path / "records", (0.0, 0.0), (0.2, 0.7))
    words = ["agree", "--truth", *(str(one.root) for one in truth), "--proxy", *(str(one.root) for one in proxy)]
    assert main([*words, "--draws", "50", "--out", str(tmp_path / "out")]) == 0
    assert "undefined" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / NUMBERS).read_text())["measures"]["r"]["estimate"] is None
    assert ">nan" not in (tmp_path / "out" / PAGE).read_text()


def test_a_folder_stands_for_its_records(tmp_path):
    worlds(tmp_path, (0.2, 0.5), (0.2, 0.5))
    assert len(open_records([tmp_path])) == 4
    with pytest.raises(FileNotFoundError, match="neither an episode record nor"):
        open_records([tmp_path / "absent"])


def test_one_policy_and_unknown_measures_are_refused(tmp_path):
    pairs = matched(*worlds(tmp_path, (0.5,), (0.5,)))
    with pytest.raises(ValueError, match="needs at least two"):
        agree(pairs, "success", np.random.default_rng(0))
    with pytest.raises(ValueError, match="Known: success, progress"):
        agree(pairs, "return", np.random.default_rng(0))


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_in_a_browser(tmp_path, chromium, width, height):
    """Nothing on the console, nothing fetched, the table sorts, and a phone need not scroll sideways."""
    found = judged(tmp_path, GOOD, GOOD)
    about = {"records": {"truth": ["a"], "proxy": ["b"]}, "seed": 0, "draws": 500}
    path = tmp_path / PAGE
    path.write_text(render(found, {"truth": "sim/point", "proxy": "dream/point"}, about))
    context = chromium.new_context(viewport={"width": width, "height": height})
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert "The proxy orders these 7 policies" in page.inner_text(".verdict")
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        page.locator("thead th", has_text="proxy").first.click()
        shown = [float(text) for text in page.locator("tbody td:nth-child(7)").all_inner_texts()]
        assert shown == order(shown) and len(shown) == 7
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.querySelector('svg.chart').getBoundingClientRect().height") > 100
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    context.close()
