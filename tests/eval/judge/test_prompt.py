"""The question in its parts, the frames that are shown, and an answer that is read strictly."""

import numpy as np
import pytest

from understudy.eval.judge.judges import JudgeError, PersonJudge, VlmJudge, ask, read_judge, rubric_of
from understudy.eval.judge.prompt import ANSWER, FAILURES, SUCCESSES, Rubric, chosen, enlarged, question, read_answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", True),
        (" no.\n", False),
        ("**YES**", True),
        ("'No'", False),
        ("<think>Is it? No, wait: it is.</think>\n\nYes", True),
        ("", None),
        ("Yes and no", None),
        ("Yes, the robot succeeded.", None),
        ("No\nYes", None),
        ("I cannot tell.", None),
        ("<think>Yes", None),
        ("yes</think>", None),
        ("Nope", None),
    ],
)
def test_only_yes_and_no_are_verdicts(text, said):
    assert read_answer(text) is said


def test_the_question_has_its_parts_in_order():
    rubric = Rubric(task="Turn it green.", success=("It is green.",), failure=("It is blue.",), views=("top", "wrist"))
    asked = question(rubric, tuple(np.zeros((3, 4, 4, 3), np.uint8)))
    assert "2 camera views, from top to bottom: top, wrist" in asked.system and "imagined" in asked.system
    told = [
        "Task: Turn it green.",
        SUCCESSES[0],
        "It is green.",
        *FAILURES,
        "contradict each other",
        "It is blue.",
        "3 frames",
    ]
    places = [asked.begin.index(text) for text in told]
    assert places == sorted(places) and asked.end == ANSWER
    one = question(Rubric(task="x"), tuple(np.zeros((2, 4, 4, 3), np.uint8)))
    assert "contradict" not in one.begin and "one view" in one.system


def test_frames_are_the_first_the_last_and_some_between():
    assert chosen(13, 4) == [0, 4, 8, 12] and chosen(3, 8) == [0, 1, 2] and chosen(1, 8) == [0]
    assert enlarged(np.zeros((32, 64, 3), np.uint8), 128).shape == (128, 256, 3)
    assert enlarged(np.zeros((200, 300, 3), np.uint8), 128).shape == (200, 300, 3)


class Says:
    """What it says, one after the other."""

    def __init__(self, *texts):
        self.texts = texts

    def answer(self, asked, number):
        return self.texts[number]


def test_more_than_half_of_the_samples_must_agree():
    frames = [np.zeros((8, 8, 3), np.uint8)] * 2

    def verdict(*texts):
        config = VlmJudge(model="m", samples=len(texts), temperature=1.0)
        return ask(config, Says(*texts), Rubric(task="x"), frames)[0]

    assert verdict("Yes", "no", "yes") == "success" and verdict("no", "No", "what?") == "failure"
    assert verdict("yes", "no") == "neither" and verdict("yes", "what?", "no") == "neither"
    assert verdict("yes", "?", "?") == "neither"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"type": "vlm"}, "needs `model`"),
        ({"type": "vlm", "model": "m", "frames": 1}, "frames of a judge is at least 2"),
        ({"type": "vlm", "model": "m", "samples": 3}, "temperature 0 are one and the same"),
        ({"type": "vlm", "model": "m", "key": "A_KEY"}, "`key` says nothing of a judge that runs here"),
        ({"type": "vlm", "model": "m", "url": "http://h/v1", "device": "cuda"}, "`device` says nothing"),
        ({"type": "vlm", "model": "m", "url": "ftp://h/v1"}, "is http"),
        ({"type": "vlm", "model": "m", "precision": "half"}, "no or bf16"),
        ({"type": "oracle"}, "oracle"),
        ({"model": "m"}, "needs its `type`: person, vlm"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, said):
    with pytest.raises(ValueError, match=said):
        read_judge(settings)


@pytest.mark.parametrize(
    "secret", [{"key": "sk-abc.DEF-123"}, {"url": "http://me:sk-abc@h/v1"}, {"url": "http://h/v1?k=sk-abc"}]
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(secret):
    with pytest.raises(JudgeError) as refused:
        VlmJudge(**{"model": "m", "url": "http://h/v1"} | secret)
    assert "sk-abc" not in str(refused.value)


def test_a_person_is_a_word_and_a_task_must_be_said():
    assert read_judge("person") == PersonJudge()
    assert rubric_of(VlmJudge(model="m"), "of the record").task == "of the record"
    assert rubric_of(VlmJudge(model="m", task="mine"), "of the record").task == "mine"
    with pytest.raises(JudgeError, match="give the judge `task`"):
        rubric_of(VlmJudge(model="m"), "")
