"""Networks of denoisers: what earlier checkpoints rely on, and what a second time asks for."""

import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.network import Layout, repeat
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
    config = DiffusionConfig(window=window, execute=2, needs=(STATE, SCENE), network=network)
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
