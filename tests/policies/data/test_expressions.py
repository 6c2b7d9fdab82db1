"""Conditions: what they mean, and that nothing but a condition is ever taken for one."""

import pytest

from understudy.policies.data.expressions import Expression, ExpressionError

VALUES = {"length": 60, "success": True, "task": "lift the cup", "subsets": ("train",), "reward": 0.5}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("success", True),
        ("not success or length < 50", False),
        ("has(subsets, 'train') and not has(task, 'push')", True),
        ("50 < length <= 60 and 'lift' in task", True),
        ("'train' in subsets and task != 'push'", True),
        ("length % 2 == 0 and reward * 2 >= 1 and -length < 0", True),
        ("length in (10, 60) and task not in ['a', 'b']", True),
        ("starts(lower(task), 'lift') and ends(task, 'cup')", True),
        ("False and length / 0 > 1", False),
    ],
)
def test_what_holds(text, holds):
    assert Expression(text, VALUES).holds(VALUES) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed > 1", "asks for 'speed', which nobody knows of an episode; known: length, reward, subsets, success"),
        ("length >", "is no condition"),
        ("__import__('os').system('true')", "is not read in a condition"),
        ("task.__class__ == 1", "is not read in a condition"),
        ("(lambda: True)()", "is not read"),
        ("[x for x in subsets]", "is not read"),
        ("task[0] == 'l'", "is not read"),
        ("length ** 99 > 1", "is not read"),
        ("length := 3", "is no condition"),
        ("lower(task, task) == 'a'", "is not read"),
        ("None == length", "no number and no text"),
        ("(" * 60 + "1" + ")" * 60 + " and " + "not " * 60 + "success", "nested too deeply"),
        ("success and " * 200 + "success", "2000 are enough"),
    ],
)
def test_what_is_no_condition_is_refused_before_any_value_is_seen(text, said):
    with pytest.raises(ExpressionError, match=said.replace("(", r"\(")):
        Expression(text, VALUES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("length", "gives 60, neither true nor false; here length is 60"),
        ("length and success", "length is 60, neither true nor false"),
        ("task > 3", "does not fit its values"),
        ("task == 3", "are never equal"),
        ("task * 3 == 'a'", "no sum of numbers"),
        ("length / 0 == 1", "division by zero"),
        ("1 in length", "does not fit"),
        ("length in ('10', '60')", "60 and '10' are never equal"),
        ("not task in (1, 2)", "are never equal"),
        ("has(subsets, 3)", "3 and 'train' are never equal"),
        ("length == (60,)", "never equal"),
        ("subsets == 'train'", "never equal"),
    ],
)
def test_what_does_not_fit_the_values_is_told(text, said):
    with pytest.raises(ExpressionError, match=said):
        Expression(text, VALUES).holds(VALUES)
