"""Outlines of registered settings, by which values are refused before torch is imported, are what the classes are."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
import typing
from enum import Enum

import pytest

from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.configs.protocols import keeps
from understudy.configs.settings.fields import is_choice
from understudy.configs.settings.outline import outlines_of
from understudy.configs.settings.refusals import UsageError
from understudy.configs.verb import SpellsOut
from understudy.policies.kinds import CompositionConfig, CriticConfig, PolicyConfig, WorldModelConfig
from understudy.policies.learning.settings import Settings


def alike(outlined: object, real: object) -> bool:
    """Whether two types take the same values."""
    if isinstance(real, type) and dataclasses.is_dataclass(real) and not is_choice(real):
        return same_fields(outlined, real)
    if is_choice(real):
        ours = {
            name: kind for name, kind in real.get_known_choices().items() if kind.__module__.startswith("understudy")
        }
        held = outlined.get_known_choices()
        return held.keys() == ours.keys() and all(same_fields(held[name], ours[name]) for name in ours)
    if isinstance(real, type) and issubclass(real, Enum):
        return {one.name: one.value for one in outlined} == {one.name: one.value for one in real}
    inside, ours = typing.get_args(outlined), typing.get_args(real)
    if not ours:
        return outlined is real
    origins = {typing.get_origin(outlined), typing.get_origin(real)} - {types.UnionType, typing.Union}
    return len(origins) < 2 and len(inside) == len(ours) and all(map(alike, inside, ours))


def of_ours(base: type) -> dict[str, type]:
    return {name: kind for name, kind in base.get_known_choices().items() if kind.__module__.startswith("understudy.")}


def same_fields(outlined: type, real: type) -> bool:
    hints, ours = typing.get_type_hints(outlined), typing.get_type_hints(real)
    names = [item.name for item in dataclasses.fields(real)]
    assert {item.name for item in dataclasses.fields(outlined)} == set(names), real
    for name in names:
        assert alike(hints[name], ours[name]), f"{real.__name__}.{name}: {hints[name]} for {ours[name]}"
    return True


@pytest.mark.parametrize("base", [PolicyConfig, CriticConfig, CompositionConfig, WorldModelConfig])
def test_an_outline_is_what_the_class_is(base):
    discover("policies", "world_models")
    known = of_ours(base)
    outlines = outlines_of(base)
    assert outlines.keys() == known.keys() and known
    for kind, config_class in known.items():
        assert same_fields(outlines[kind], config_class)
        required = {item.name for item in dataclasses.fields(config_class) if default_is_missing(item)}
        assert {item.name for item in dataclasses.fields(outlines[kind]) if default_is_missing(item)} == required
        assert not keeps(config_class, SpellsOut), "what it spells out is not known without its module; see SYNONYMS"


def default_is_missing(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


LIFT = "configs/train/lift.yaml"
TAKEN = [
    ["--policy.prediction_type", "v_prediction"],
    ["--policy.head", "sample"],
    ["--policy.network", "transformer"],
    ["--policy.network.type", "unet", "--policy.network.channels", "[64, 128]"],
    ["--policy.window", "{observe: {count: 2, stride: 1}, horizon: 8}"],
    ["--policy.vision.encoder.width", "32"],  # of the encoder that there is without a type
    ["--policy.vision.crop", "null"],
    ["--policy.input_bound", "null"],
    ["--policy.language.type", "transformers", "--policy.language.path", "010", "--policy.language.width", "8"],
    ["--policy.inputs", "observation.state", "observation.environment_state"],
]
REFUSED = {
    "--policy.window.horizon x": "policy.window.horizon takes a whole number, got 'x'",
    "--policy.network.width 1.5": "policy.network.width takes a whole number, got 1.5",
    "--policy.vision.crop [1]": "policy.vision.crop takes [84, 84], got [1]",
    "--policy.vision.encoder.width x": "policy.vision.encoder.width takes a whole number, got 'x'",
    "--policy.prediction_type nope": "policy.prediction_type cannot be 'nope'. Known: epsilon, x0, v, flow",
    "--policy.prediction_type [v]": "policy.prediction_type cannot be ['v']",
    "--policy.sampler.solver nope": "policy.sampler.solver cannot be 'nope'. Known: ddim, dpmpp, heun",
    "--policy.sampler fast": "policy.sampler must hold keys, got 'fast'",
    "--policy.sampler null": "policy.sampler must hold keys; null says nothing",
    "--policy.network 3": "policy.network must hold keys, got 3",
    "--policy.given x": "policy.given takes true or false, got 'x'",
    "--task_spec.scale.low x": "task_spec.scale.low takes [0.5, 0.5], got 'x'",
}


def refusals(commands: list[list[str]]) -> list[str]:
    """What is said of each in a process that imports no torch; empty where it is taken."""
    code = f"""if True:
        import json, sys
        from understudy.configs.parse import check_words
        from understudy.configs.settings.refusals import UsageError
        from understudy.policies.learning.settings import Settings
        said = []
        for words in {commands!r}:
            try:
                check_words(Settings, {LIFT!r}, words)
                said.append("")
            except UsageError as error:
                said.append(str(error))
        assert "torch" not in sys.modules
        print(json.dumps(said))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_what_the_class_takes_the_outline_takes():
    discover("policies")
    for words in TAKEN:
        parse(Settings, LIFT, words)
    assert refusals(TAKEN) == [""] * len(TAKEN)


def test_a_wrong_value_is_refused_without_torch_as_the_class_refuses_it():
    discover("policies")
    said = refusals([words.split() for words in REFUSED])
    for (words, expected), message in zip(REFUSED.items(), said, strict=True):
        with pytest.raises(UsageError) as caught:
            parse(Settings, LIFT, words.split())
        assert message == str(caught.value) and message.startswith(expected)


def test_what_a_policy_complains_about_is_said():
    """Not that the whole group is none, as of a group that may be left out."""
    discover("policies")
    with pytest.raises(UsageError, match="^n_action_steps must be within 1..16"):
        parse(Settings, LIFT, ["--policy.n_action_steps", "100"])
    with pytest.raises(UsageError, match="^policy.sampler: unknown scheduler 'fast'"):
        parse(Settings, LIFT, ["--policy.sampler.scheduler", "fast"])
