"""`understudy eval --data`: a policy judged by recorded episodes, from the words to record, page and comparison."""

import json
import re
import shutil

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.spec import SCENE
from understudy.eval.compare.open_loop import _beside, compare_errors
from understudy.eval.evaluate import open_loop
from understudy.eval.ledger.record import read_record
from understudy.eval.ledger.table import RecordError
from understudy.eval.offline.errors import spread_of
from understudy.eval.offline.record import INCIDENTAL, read_errors
from understudy.policies.data.dataset import split_episodes
from understudy.policies.data.open import open_dataset

POLICY = ["--policy.type", "diffusion", "--policy.network.type", "mlp", "--policy.network.width", "8"]
POLICY += ["--policy.sampler.steps", "2", "--policy.window", "{observe: [0], horizon: 6}"]
POLICY += ["--policy.n_action_steps", "4"]
QUICK = ["--batch", "8", "--best", "none", "--save_every", "4", "--threads", "1", "--device", "cpu"]


def train(data, out, *more, policy=POLICY, steps=4):
    words = ["train", "--data", str(data), "--out", str(out), "--steps", str(steps), *policy, *QUICK, *more]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Demonstrations, two runs that held out the same three of ten episodes, one that held out none, and a record."""
    folder = tmp_path_factory.mktemp("open_loop")
    assert main(["demos", "point", "--episodes", "10", "--noise", "0.3", "--out", str(folder / "demos")]) == 0
    train(folder / "demos", folder / "run", "--validation", "0.3")
    train(folder / "demos", folder / "more", "--validation", "0.3", steps=60)
    train(folder / "demos", folder / "all", "--validation", "0")
    assert main(words_of(folder, "run", "record")) == 0
    return folder


def words_of(folder, run, out, *more):
    usual = {"--data": str(folder / "demos"), "--out": str(folder / out)}
    given = [word for flag, value in usual.items() if flag not in more for word in (flag, value)]
    return ["eval", "--policy", str(folder / run), *given, *more]


def test_the_held_out_episodes_are_judged_and_a_page_says_so(folder):
    dataset, record = open_dataset(folder / "demos"), read_errors(folder / "record")
    trained, held = split_episodes(dataset, 0.3, 0)
    assert record.column("episode") == held.tolist() and record.manifest["complete"]
    about = record.manifest["data"]
    assert about["status"] == "held out" and about["trained_on"] == []
    np.testing.assert_allclose(about["spread"], spread_of(dataset), rtol=1e-5)
    rows = np.isin(np.repeat(np.arange(10), dataset.lengths), trained)
    np.testing.assert_allclose(about["mean_action"], dataset.columns["action"][rows].mean(0), rtol=1e-5)

    page = (folder / "record" / "report.html").read_text()
    said = re.search(r'<p class="verdict">(.*?)</p>', page)[1]
    assert "on 3 held-out episodes" in said and "the mean action" in said and "the last action" in said
    assert "does not predict success" in page and 'class="warning"' not in page.partition("<noscript>")[0]
    curves = json.loads(re.search(r'id="curve-data">(.*?)</script>', page)[1])
    assert curves["names"] == list(dataset.embodiment.action) and len(curves["episodes"]) == 3
    one = curves["episodes"][0]
    length = int(dataset.lengths[one["episode"]])
    assert len(one["seconds"]) == len(one["recorded"][0]) == len(one["planned"][1]) == length
    assert one["seconds"][1] == pytest.approx(1 / dataset.rate)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_what_was_trained_on_is_told_loudly(folder, capsys):
    assert main(words_of(folder, "run", "seen", "--episodes", "all")) == 0
    heard = capsys.readouterr()
    assert "TRAINED on 7 of these 10 episodes" in heard.err and "7 of which it was TRAINED on" in heard.out
    record = read_errors(folder / "seen")
    assert len(record.manifest["data"]["trained_on"]) == 7
    assert "trained on 7 of these 10" in (folder / "seen" / "report.html").read_text()
    assert main(["doctor", str(folder / "seen")]) == 0
    assert "7 of its episodes were trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "more", "message"),
    [
        ("all", [], "held no episode of"),
        ("run", ["--world", "point"], "--world is of a policy that acts"),
        ("run", ["--videos=2"], "--videos is of a policy that acts"),
        ("run", ["--episodes", "3-20"], "has no episode 10"),
        ("run", ["--episodes", "some"], "names no episodes"),
        ("run", ["--n_action_steps", "7"], "must be within 1..6"),
        ("run", ["--candidates", "0"], "at least 1"),
        ("run", ["--every", "0"], "at least 1"),
        ("run", ["--data", "{folder}/nothing"], "nothing"),
        ("run", ["--out", "{folder}/record"], "exists; give another --out, or --resume"),
        ("nobody", [], "nobody"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_planned(folder, capsys, run, more, message):
    assert main(words_of(folder, run, "refused", *(word.format(folder=folder) for word in more))) == 2
    error = capsys.readouterr().err
    assert message in error and "--traceback" not in error
    assert not (folder / "refused").exists()


def test_data_of_another_body_is_refused_by_its_first_difference(folder, capsys, tmp_path):
    for name, change in {
        "names": lambda card: card["action"].reverse(),
        "units": lambda card: card["action_units"].__setitem__(0, "rad"),
        "rate": lambda card: card.update(rate=card["rate"] / 2),
    }.items():
        shutil.copytree(folder / "demos", tmp_path / name)
        card = json.loads((tmp_path / name / "meta/embodiment.json").read_text())
        change(card)
        (tmp_path / name / "meta/embodiment.json").write_text(json.dumps(card))
        words = words_of(folder, "run", "refused", "--data", str(tmp_path / name))
        assert main(words) == 2
        error = capsys.readouterr().err
        assert {"names": "the first that differs is number 0", "units": "unit of", "rate": "rate"}[name] in error
        assert not (folder / "refused").exists()


def test_a_record_that_was_interrupted_goes_on_to_the_same(folder, capsys, monkeypatch):
    calls, whole = [], open_loop.chunk_errors

    def stop_at_the_third(*words):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*words)

    monkeypatch.setattr(open_loop, "chunk_errors", stop_at_the_third)
    assert main(words_of(folder, "run", "half")) == 130
    error = capsys.readouterr().err
    assert "2 of 3 episodes are kept" in error and "--resume" in error
    assert "stopped early: 2 of 3" in (folder / "half" / "report.html").read_text()
    monkeypatch.undo()
    words = words_of(folder, "run", "half")
    words[words.index("--out")] = "--resume"
    assert main([*words, "--policy_seed", "1"]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert main(words) == 0
    first, second = (read_errors(folder / name).table.drop_columns(INCIDENTAL) for name in ("record", "half"))
    assert first.equals(second)


def doctor(path):
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(path)])
    return end.value.code


def test_doctor_finds_what_was_changed(folder, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert main(["doctor", str(folder / "record")]) == 0
    assert "open-loop errors on 3 of 3 episodes" in capsys.readouterr().out
    shutil.copytree(folder / "record", tmp_path / "changed")
    file = tmp_path / "changed" / "episodes.parquet"
    table = pq.ParquetFile(file).read()
    rows = table.to_pylist()
    rows[1]["error"][0] /= 2
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    assert doctor(tmp_path / "changed") == 1
    told = capsys.readouterr().out
    assert "error is not that of error_by_step" in told and "rows were changed" in told
    assert main(["compare", str(folder / "record"), str(tmp_path / "changed")]) == 2
    file.write_bytes(b"PAR1")
    assert doctor(tmp_path / "changed") == 1
    with pytest.raises(RecordError, match="holds open-loop errors"):
        read_record(folder / "record")


def test_two_records_are_joined_by_episode(folder, tmp_path, capsys):
    assert main(words_of(folder, "more", "record-more")) == 0
    assert main(["compare", str(folder / "record"), str(folder / "record-more"), "--out", str(tmp_path / "duel")]) == 0
    said = capsys.readouterr().out
    records = [read_errors(folder / name) for name in ("record", "record-more")]
    spread = np.array(records[0].manifest["data"]["spread"])
    errors = [(np.array(record.column("error")) / spread).mean(1) for record in records]
    comparison = compare_errors(records)
    assert comparison.difference.estimate == pytest.approx((errors[0] - errors[1]).mean(), rel=1e-4)
    assert [one.a - one.b for one in comparison.dimensions] == pytest.approx(
        [one.difference.estimate for one in comparison.dimensions]
    )
    assert all(one.p_holm >= one.p for one in comparison.dimensions)
    assert comparison.says in said and "A - B is" in said
    assert any(
        "3 episodes are few" in caveat and "eval --data DATA --episodes" in caveat for caveat in comparison.caveats
    )
    kept = json.loads((tmp_path / "duel" / "compare.json").read_text())
    assert kept["kind"] == "open-loop comparison" and kept["n"] == 3
    assert "A - B is" in (tmp_path / "duel" / "compare.html").read_text()


def test_two_policies_are_judged_by_what_neither_was_trained_on(folder, tmp_path, capsys):
    other = train(folder / "demos", tmp_path / "other", "--validation", "0.6", "--seed", "1")
    words = [
        "compare",
        str(folder / "run"),
        str(other),
        "--data",
        str(folder / "demos"),
        "--out",
        str(tmp_path / "duel"),
    ]
    assert main([*words, "--world", "point"]) == 2
    assert "--world is of policies that act" in capsys.readouterr().err
    assert main(words) == 0
    dataset = open_dataset(folder / "demos")
    both = set(split_episodes(dataset, 0.3, 0)[1].tolist()) & set(split_episodes(dataset, 0.6, 1)[1].tolist())
    for side in "ab":
        record = read_errors(tmp_path / "duel" / side)
        assert set(record.column("episode")) == both and record.manifest["data"]["status"] == "held out"
    assert main(words) == 2 and "exists" in capsys.readouterr().err


def test_the_second_policy_is_checked_before_the_first_one_is_judged(folder, tmp_path, capsys):
    stranger = shutil.copytree(folder / "run", tmp_path / "stranger", symlinks=True)
    for file in stranger.rglob("embodiment.json"):
        body = json.loads(file.read_text())
        file.write_text(json.dumps(body | {"action": [f"other {name}" for name in body["action"]]}))
    words = ["compare", str(folder / "run"), str(stranger), "--data", str(folder / "demos")]
    assert main([*words, "--out", str(tmp_path / "duel")]) == 2
    assert f"{stranger} plans" in capsys.readouterr().err and not (tmp_path / "duel" / "a").exists()


def test_records_that_do_not_belong_together_are_refused(folder, tmp_path, capsys):
    assert main(words_of(folder, "run", "one", "--episodes", "0")) == 0
    assert main(["compare", str(folder / "one"), str(folder / "record")]) in (0, 2)
    for name, words in {"every": ["--every", "2"], "others": ["--episodes", "1,2"]}.items():
        assert main(words_of(folder, "run", name, *words)) == 0
    assert main(["demos", "point", "--episodes", "10", "--env_seed", "7777", "--out", str(tmp_path / "new")]) == 0
    words = ["eval", "--policy", str(folder / "run"), "--data", str(tmp_path / "new"), "--out", str(tmp_path / "fresh")]
    assert main(words) == 0
    capsys.readouterr()
    assert read_errors(tmp_path / "fresh").manifest["data"]["status"] == "other"
    for second, message in {
        folder / "every": "differ in --every",
        folder / "others": "share no episode",
        tmp_path / "fresh": "not the same recording",
        folder / "run": "no open-loop errors",
    }.items():
        first = folder / "one" if second.name == "others" else folder / "record"
        assert main(["compare", str(first), str(second)]) == 2
        assert message in capsys.readouterr().err


def test_two_that_held_out_no_episode_in_common_are_told_so(folder, tmp_path, capsys):
    words = ["train", "--data", str(folder / "demos"), "--policy.type", "regression", "--steps", "1", "--threads", "1"]
    for name, episodes in (("a", "0-4"), ("b", "5-9")):
        assert main([*words, "--episodes", episodes, "--validation", "0.2", "--out", str(tmp_path / name)]) == 0
    runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["compare", *runs, "--data", str(folder / "demos"), "--out", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err
    assert f"was held out by the trainings of all of {', '.join(runs)}" in said
    assert "understudy eval --episodes all for each" in said and "held no episode of" not in said


def test_a_composition_says_what_was_held_out_by_its_parents(folder, tmp_path, capsys):
    mix = ["mix", str(folder / "run"), str(folder / "more"), "--out", str(tmp_path / "mix"), "--how.type", "convex"]
    assert main([*mix, "--how.weights.weights", "[[0.5, 0.5]]"]) == 0
    data = ["--data", str(folder / "demos")]
    assert main(["eval", "--policy", str(tmp_path / "mix"), *data, "--out", str(tmp_path / "unknown")]) == 0
    assert "nobody knows whether the policy was trained on these episodes" in capsys.readouterr().err
    assert len(read_errors(tmp_path / "unknown").table) == 10
    words = ["eval", "--policy", str(tmp_path / "mix"), *data, "--out", str(tmp_path / "known")]
    assert main([*words, "--held_out_of", str(folder / "run"), str(folder / "more"), "--candidates", "3"]) == 0
    record = read_errors(tmp_path / "known")
    assert record.column("episode") == read_errors(folder / "record").column("episode")
    assert record.manifest["data"]["status"] == "held out" and "mean of 3" in capsys.readouterr().out


def test_the_command_of_a_record_makes_it_again(folder, tmp_path):
    import shlex

    record = read_errors(folder / "record")
    words = shlex.split(record.manifest["command"])[1:]
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    again = read_errors(tmp_path / "again")
    assert again.table.drop_columns(INCIDENTAL).equals(record.table.drop_columns(INCIDENTAL))


def test_a_config_file_may_name_the_data(folder, tmp_path):
    file = tmp_path / "judge.yaml"
    file.write_text(f"policy: {folder / 'run'}\ndata: {folder / 'demos'}\nout: {tmp_path / 'record'}\n")
    assert main(["eval", str(file)]) == 0
    assert len(read_errors(tmp_path / "record").table) == 3


def test_the_help_of_both_ways_points_to_the_other(capsys):
    assert main(["eval", "--help"]) == 0
    assert "--data DATASET" in capsys.readouterr().out
    assert main(["eval", "--data", "x", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--held_out_of" in said and "understudy estimate" in said and "--workers" not in said


TINY = {"horizon": 8, "n_action_steps": 4, "down_dims": (16, 32), "diffusion_step_embed_dim": 16}
SETTINGS = {
    "diffusion": TINY | {"noise_scheduler_type": "DDIM", "num_inference_steps": 2},
    "act": {"chunk_size": 6, "n_action_steps": 4, "dim_model": 32, "n_heads": 2, "use_vae": False},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_policy_of_lerobots_is_judged_by_what_it_was_not_told_to_read(folder, lerobot, tmp_path, capsys, kind):
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    dataset, keys = open_dataset(folder / "demos"), {"observation.state": "STATE", SCENE: "ENV", "action": "ACTION"}
    shapes = {key: (dataset.columns[key].shape[1],) for key in keys}
    features = {key: PolicyFeature(FeatureType(kind), shapes[key]) for key, kind in keys.items()}
    stats = {key: _statistics(torch.from_numpy(dataset.columns[key])) for key in keys}
    config = make_policy_config(
        kind,
        input_features={key: features[key] for key in keys if key != "action"},
        output_features={"action": features["action"]},
        device="cpu",
        push_to_hub=False,
        pretrained_backbone_weights=None,
        **SETTINGS[kind],
    )
    torch.manual_seed(0)
    checkpoint = tmp_path / "pretrained_model"
    get_policy_class(kind)(config).save_pretrained(checkpoint)
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(checkpoint)

    def told(episodes):
        about = {"repo_id": "me/demos", "root": str(folder / "demos"), "episodes": episodes}
        (checkpoint / "train_config.json").write_text(json.dumps({"dataset": about}))

    words = ["eval", "--policy", str(checkpoint), "--data", str(folder / "demos")]
    told(None)
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "held no episode of" in capsys.readouterr().err
    told([0, 1, 2, 3, 4, 5, 6])
    assert main([*words, "--out", str(tmp_path / "record"), "--candidates", "2"]) == 0
    record = read_errors(tmp_path / "record")
    assert record.column("episode") == [7, 8, 9] and record.manifest["data"]["status"] == "held out"
    assert main(["compare", str(tmp_path / "record"), str(tmp_path / "record")]) == 0
    assert "not shown to differ: A - B is +0" in capsys.readouterr().out


def _statistics(values):
    spread = {"mean": values.mean(0), "std": values.std(0).clamp_min(0.1)}
    return spread | {"min": values.min(0).values - 0.1, "max": values.max(0).values + 0.1}


def test_neither_is_praised_where_a_guess_is_nearer():
    guesses = {"the mean action": 0.9, "simply repeating the last action": 0.06}
    told = _beside(np.array([0.7, 0.8]), guesses, "A is nearer.")
    assert told.startswith("Neither does better than simply repeating the last action")
    assert told.endswith("as it is: A is nearer.")
    assert _beside(np.array([0.05, 0.8]), guesses, "A is nearer.").startswith("A is nearer. A is off by 0.05")
