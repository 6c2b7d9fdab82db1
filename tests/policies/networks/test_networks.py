"""Networks of denoisers: what earlier checkpoints rely on, and what a second time asks for."""

import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.activate import LARGE, SMALL, Mish, mish, replace_mish
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.network import Layout, repeat
from understudy.policies.networks.transformer import TransformerConfig
from understudy.policies.networks.unet import UNetConfig
from understudy.policies.policy import Scales

STATE, SCENE = "observation.state", "observation.environment_state"
BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0,
    state=("a", "b"), state_units=("m", "m"), scene=("c",), scene_units=("m",),
)  # fmt: skip
SCALES = Scales(action=((-1.0,), (1.0,)), states={STATE: ((0.0, 0.0), (1.0, 1.0)), SCENE: ((0.0,), (1.0,))})
MLP = MLPConfig(width=8, depth=1, condition_width=8)
UNET = UNetConfig(channels=(8, 16), groups=4, time_width=8)


@pytest.mark.parametrize(
    "network, tensors, answer",
    [
        (MLP, 24, (0.14344093203544617, 0.42585012316703796, 0.5234807133674622, 0.39044320583343506)),
        (UNET, 93, (0.3937644958496094, 0.39383167028427124, 0.37166717648506165, 0.36121034622192383)),
    ],
)
def test_checkpoints_from_before_tokens_had_times_act_as_they_did(network, tensors, answer):
    """Numbers of the first release: the weights lie in the same order and two keys are joined as they were."""
    window = Window(observe=(-1, 0), horizon=4)
    config = DiffusionConfig(window=window, n_action_steps=2, inputs=(STATE, SCENE), network=network, linear_skip=False)
    policy = config.build(BODY, SCALES).eval()
    assert len(policy.state_dict()) == tensors
    for i, (name, weight) in enumerate(policy.state_dict().items()):
        if name.startswith("network"):
            weight.copy_(torch.sin(torch.arange(weight.numel()) * 0.7 + i).view_as(weight) * 0.3)
    batch = {
        STATE: torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]),
        SCENE: torch.tensor([[[0.5], [0.6]]]),
        "observation.valid": torch.ones(1, 2, dtype=torch.bool),
        "action.valid": torch.ones(1, 4, dtype=torch.bool),
    }
    out = policy.network(torch.tensor([[[0.1], [-0.2], [0.3], [0.4]]]), torch.tensor([0.4]), policy.context(batch))
    assert out.flatten().tolist() == pytest.approx(answer, abs=1e-5)


@pytest.mark.parametrize("network", [MLP, UNET])
def test_a_gap_is_asked_for_exactly_where_the_network_has_two_times(network):
    layout = Layout((-2, -1, 0, 1), 1, (-1, 0), (2, 1))
    masks = torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)
    x, t, gap = torch.randn(3, 4, 1), torch.full((1,), 0.5), torch.full((1,), 0.25)
    one, two = network.build(layout), network.build(layout, two_times=True)
    for built in (one, two):
        for parameter in built.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    context = two.encode(torch.randn(3, 2, 3), *masks)
    assert two(x, t, context, gap).shape == x.shape
    assert not torch.allclose(two(x, t, context, gap), two(x, t, context, 2 * gap), atol=1e-4)
    assert torch.equal(two(x, t.expand(3), context, gap.expand(3)), two(x, t.expand(3), context, gap.expand(3)))
    with pytest.raises(ValueError, match="needs a gap"):
        two(x, t, context)
    with pytest.raises(ValueError, match="takes none"):
        one(x, t, one.encode(torch.randn(3, 2, 3), *masks), gap)
    assert len(repeat(context, 5)) == 15


def transformer(layout, **settings):
    torch.manual_seed(0)
    network = TransformerConfig(width=16, depth=3, heads=2).build(layout, **settings)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network.eval()


LONG = Layout((-6, -4, -2, 0, 1, 2), 1, (-6, -4, -3, -1, 0), (2, 1))


def asked(network, frames, x, seen=None, present=None):
    seen = torch.ones(len(frames), 5, dtype=torch.bool) if seen is None else seen
    present = torch.ones(len(x), 6, dtype=torch.bool) if present is None else present
    return network(x, torch.tensor([0.3]), network.encode(frames, seen, present))


@pytest.mark.parametrize("changed", range(5))
def test_a_later_observation_never_changes_an_earlier_token(changed):
    network = transformer(LONG)
    frames, x = torch.randn(2, 5, 3), torch.randn(2, 6, 1)
    other = frames.clone()
    other[:, changed] += 1
    moved = (asked(network, frames, x) != asked(network, other, x)).any(0).squeeze(-1)
    assert moved.tolist() == [time >= LONG.observe[changed] for time in LONG.actions]


@pytest.mark.parametrize("changed", range(6))
def test_a_later_action_never_changes_an_earlier_token(changed):
    network = transformer(LONG)
    frames, x = torch.randn(2, 5, 3), torch.randn(2, 6, 1)
    other = x.clone()
    other[:, changed] += 1
    moved = (asked(network, frames, x) != asked(network, frames, other)).any(0).squeeze(-1)
    assert moved.tolist() == [time >= LONG.actions[changed] for time in LONG.actions]


def test_padding_is_not_looked_at_and_nothing_breaks_without_any_frame():
    network = transformer(LONG)
    frames, x = torch.randn(2, 5, 3), torch.randn(2, 6, 1)
    seen = torch.tensor([[False] * 5, [False, False, True, True, True]])
    present = torch.tensor([[False] * 3 + [True] * 3] * 2)
    other_frames = torch.where(seen[..., None], frames, 1e6)
    other_x = torch.where(present[..., None], x, 1e6)
    first, second = asked(network, frames, x, seen, present), asked(network, other_frames, other_x, seen, present)
    assert torch.isfinite(first).all() and torch.equal(first[:, 3:], second[:, 3:])
    first.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_lanes_do_not_depend_on_their_neighbours():
    network = transformer(LONG)
    frames, x = torch.randn(2, 5, 3), torch.randn(2, 6, 1)
    assert torch.allclose(asked(network, frames, x)[:1], asked(network, frames[:1], x[:1]), atol=1e-6)


def test_transformer_with_two_times_can_be_differentiated_forwards():
    network = transformer(LONG, two_times=True)
    masks = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    context = network.encode(torch.randn(2, 5, 3), *masks)
    x, t, gap = torch.randn(2, 6, 1), torch.full((2,), 0.7), torch.full((2,), 0.2)
    tangents = torch.randn(2, 6, 1), torch.ones(2), torch.ones(2)
    _, slope = torch.func.jvp(lambda x, t, gap: network(x, t, context, gap), (x, t, gap), tangents)
    network, context = network.double(), tuple(c.double() if c.is_floating_point() else c for c in context)
    ahead, back = (
        network(*(v.double() + sign * 1e-5 * d for v, d in zip((x, t), tangents, strict=False)), context,
                gap.double() + sign * 1e-5 * tangents[2])
        for sign in (1, -1)
    )  # fmt: skip
    assert torch.allclose(slope.double(), (ahead - back) / 2e-5, rtol=1e-3, atol=1e-3)


def test_transformer_has_the_number_of_weights_of_its_parts():
    config = TransformerConfig(width=256, depth=8, heads=4)
    network = config.build(Layout(tuple(range(-15, 17)), 10, tuple(range(-15, 1)), (137,)))
    w, linear = 256, lambda a, b: a * b + b
    layer = 3 * 2 * w + 2 * (linear(w, w) + linear(w, 2 * w) + linear(w, w)) + linear(w, 4 * w) + linear(4 * w, w)
    memory = 2 * (linear(w, 4 * w) + linear(4 * w, w)) + linear(137, w) + 16 * w + 2 * w
    assert sum(p.numel() for p in network.parameters()) == (
        8 * layer + memory + linear(10, w) + 32 * w + 2 * w + linear(w, 10)
    )
    with pytest.raises(ValueError, match="multiple of heads"):
        TransformerConfig(width=10, heads=4)


@pytest.mark.parametrize("count", [3, SMALL, 20_000, LARGE + 1])
def test_mish_is_that_of_torch_with_and_without_a_gradient(count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)) * 10
    x[:3] = torch.tensor([-1e4, 1e4, 0.0])
    expected = torch.nn.functional.mish(x)
    with torch.no_grad():
        torch.testing.assert_close(mish(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mish(x.requires_grad_()), expected, rtol=0, atol=0)


def test_mish_of_what_is_not_finite_is_that_of_torch():
    x = torch.full((SMALL,), torch.inf)
    x[0], x[1] = -torch.inf, torch.nan
    with torch.no_grad():
        torch.testing.assert_close(mish(x), torch.nn.functional.mish(x), equal_nan=True)


def test_mish_is_replaced_everywhere_in_a_network_and_nothing_else_is():
    network = torch.nn.Sequential(torch.nn.Linear(4, 800), torch.nn.Mish(), torch.nn.Sequential(torch.nn.Mish()))
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    names = list(network.state_dict())
    with torch.no_grad():
        expected = network(x)
        replace_mish(network)
        torch.testing.assert_close(network(x), expected)
    assert sum(isinstance(one, Mish) for one in network.modules()) == 2 and list(network.state_dict()) == names
    assert isinstance(network[0], torch.nn.Linear)
