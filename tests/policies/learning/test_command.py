"""`understudy train` as far as it goes without torch."""

from understudy.policies.learning.command import _inputs_asked

LIFT = "configs/train/lift.yaml"


def test_inputs_are_those_of_the_words_or_else_of_the_config():
    states = ["observation.state", "observation.environment_state"]
    assert _inputs_asked(LIFT, []) == states and _inputs_asked(None, []) == []
    assert _inputs_asked(LIFT, ["--policy.inputs", "[a, b]"]) == ["a", "b"]
    assert _inputs_asked(LIFT, ["--policy.inputs=a"]) == ["a"] and _inputs_asked(LIFT, ["--policy.inputs", "3"]) == [
        "3"
    ]
