"""The judge that runs here: a tiny model of transformers, taught, saved, and opened through what users take."""

import json

import pytest

from understudy.eval.judge.judges import JudgeError, VlmJudge, ask
from understudy.eval.judge.local import LocalModel
from understudy.eval.judge.prompt import Rubric, chosen

from . import tiny
from .conftest import film

pytestmark = pytest.mark.timeout(600)  # transformers is slow to import, on a machine that others load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = tiny.library()
    path = tmp_path_factory.mktemp("vlm")
    assert tiny.save(path, transformers) < 0.3
    return path


def judge(folder, **changes):
    settings = {"model": str(folder), "frames": tiny.FRAMES, "side": tiny.SIDE, "tokens": 4}
    return VlmJudge(**settings | changes)


def verdict(config, won):
    frames = film(won)
    shown = [frames[place] for place in chosen(len(frames), config.frames)]
    return ask(config, LocalModel(config), Rubric(task=tiny.TASK), shown)


def test_it_looks_and_answers(folder, monkeypatch):
    assert verdict(judge(folder), True) == ("success", "Yes")
    assert verdict(judge(folder), False) == ("failure", "No")
    assert verdict(judge(folder, precision="bf16"), True)[0] == "success"
    monkeypatch.setenv("MODELS", str(folder.parent))
    assert verdict(judge(f"$MODELS/{folder.name}"), False)[0] == "failure"


def test_an_answer_that_is_cut_is_none(folder):
    said, answer = verdict(judge(folder, tokens=1), True)
    assert said == "neither" and answer.endswith("[cut off]")


def test_a_template_that_leaves_part_of_the_question_out_is_refused(folder, tmp_path):
    """Many have no system role, and some of them drop what it says."""
    for file in folder.iterdir():
        text = file.read_bytes()
        dropping = "{% for message in messages if message['role'] != 'system' %}"
        (tmp_path / file.name).write_bytes(text.replace(b"{% for message in messages %}", dropping.encode()))
    with pytest.raises(JudgeError, match="leaves out its role"):
        verdict(judge(tmp_path), True)
    for file in folder.iterdir():
        refusing = b"{{ raise_exception('no system role') }}{% for message in messages %}"
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"{% for message in messages %}", refusing))
    with pytest.raises(JudgeError, match="cannot be asked about .*no system role"):
        verdict(judge(tmp_path), True)


def test_samples_are_drawn_and_the_same_again(folder):
    config = judge(folder, samples=5, temperature=2.0)
    one, again = verdict(config, True), verdict(config, True)
    assert one == again and len(one[1].split(" | ")) == 5
    assert verdict(judge(folder, samples=5, temperature=2.0, seed=100), True)[1] != one[1]


def test_one_that_was_taught_nothing_gives_no_verdict(tmp_path):
    tiny.save(tmp_path, tiny.library(), most=0)
    assert verdict(judge(tmp_path), True)[0] == "neither"


def test_another_family_is_asked_in_the_same_way(tmp_path):
    """Qwen2-VL, whose pictures have no size of their own."""
    tiny.save_qwen(tmp_path, tiny.library())
    assert verdict(judge(tmp_path), True)[0] == "neither"


def test_weights_that_are_missing_are_named(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if "connector" in name)
    save_file(
        {name: value for name, value in weights.items() if name != gone},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(JudgeError, match="weights are missing, such as .*connector"):
        LocalModel(judge(tmp_path))


def test_what_is_no_such_model_is_said(folder, tmp_path):
    with pytest.raises(JudgeError, match="cannot open 'no/such-model'"):
        LocalModel(judge("no/such-model"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(JudgeError, match="cannot open"):
        LocalModel(judge(tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
        if (tmp_path / name).is_file():
            values = json.loads((tmp_path / name).read_text())
            (tmp_path / name).write_text(json.dumps({k: v for k, v in values.items() if k != "chat_template"}))
    with pytest.raises(JudgeError, match="no chat template"):
        LocalModel(judge(tmp_path))


def test_pickled_weights_and_code_of_a_model_are_not_run(folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(JudgeError, match="cannot open"):
        LocalModel(judge(tmp_path))

    values = json.loads((tmp_path / "config.json").read_text())
    values |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(JudgeError, match="cannot open"):
        LocalModel(judge(tmp_path))
    assert not (tmp_path / "ran").exists()
