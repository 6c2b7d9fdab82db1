"""Planning with dreams: a critic that imagines what each candidate plan leads to, and asks the judge of frames.

`--critic RUN`, RUN being a world model's, stands where a trained critic would, also beside others:
`RUN+0.5*runs/value`, `recall:5>RUN`. All plans of all lanes are imagined at once, from the same frames and with the
same noise. A plan is worth the greatest probability of success that is seen along it, where the film can be true, plus
the progress at its end.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from ..configs.spec import IMAGES, STATE, Window
from ..policies.learning.checkpoint import fingerprint, load_model
from ..policies.policy import Critic, Past, Planner, Plans
from .codec import Reading
from .film_model import FilmModel
from .gate import DreamError, noted, passes, refusal

REAL_AT = 0.1  # probability that a film can be true below which its success counts for nothing


def imagined_critic(folder: str | Path, planner: Planner, device: str = "cpu") -> ImaginedCritic:
    """The critic of a planner's plans by the world model in a checkpoint.

    Raises:
        DreamError: nothing that imagines, or a model that does not follow its actions, or was not measured.
        EmbodimentError: it was trained for another body.
    """
    model, info = load_model(folder, "world")
    if not isinstance(model, FilmModel):
        raise DreamError(f"{info['path']} holds a {info['type']}, which imagines nothing, and so ranks no plans")
    following = noted(info["path"], fingerprint(Path(info["path"])))
    if not passes(following):
        raise DreamError(f"{info['path']} ranks no plans: {refusal(following)}")
    model.embodiment.check(planner.embodiment, (STATE,) if model.draws else ())
    return ImaginedCritic(model.to(device))


class ImaginedCritic(Critic):
    """A `Critic` by imagined outcomes. It reads the cameras of its model, at their size."""

    reads = 1  # whatever is executed: the whole plan is imagined

    def __init__(self, model: FilmModel):
        self.model, self.embodiment = model, model.embodiment
        eyes = model.config.eyes
        self.inputs = tuple(IMAGES + name for name in eyes.cameras) + ((STATE,) if model.draws else ())
        self._cameras = self.inputs[: len(eyes.cameras)]
        self.window = Window(observe=(-1, 0), recall=(), horizon=1)
        self.eyes = SimpleNamespace(sizes=dict.fromkeys(self._cameras, eyes.size), config=SimpleNamespace(looks={}))

    @torch.no_grad()
    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N), higher is better."""
        model, seen = self.model, past.at(self.window)
        device = next(model.parameters()).device
        before, now = (torch.stack([seen.obs[key][:, at] for key in self._cameras], 1).to(device) for at in (0, 1))
        many = plans.future.shape[1]
        rows = torch.arange(len(now), device=device).repeat_interleave(many)
        memory = model.remember(now, before, seen.obs[STATE].to(device) if model.draws else None).rows(rows)
        low, high = torch.tensor(self.embodiment.limits, device=device, dtype=torch.float32).unbind(1)
        actions = plans.future.to(device).flatten(0, 1).clamp(low, high)  # as they would be executed

        gap, best = model.config.eyes.gap, torch.zeros(len(rows), device=device)
        generator = torch.Generator().manual_seed(
            0
        )  # the same noise for all plans, so that they differ by actions alone
        earlier = model.sight.read(model.show(memory.now, memory.pose))
        for begin in range(0, actions.shape[1], gap):
            chunk = actions[:, begin : begin + gap]
            for part in chunk.split(model.horizon, 1):
                noise = torch.randn(1, 1, *memory.now.shape[1:], generator=generator).to(device)
                latents, memory = model.advance(memory, part, (part.shape[1],), noise.expand(len(rows), -1, -1, -1, -1))
            read = model.sight.read(model.show(latents[:, -1], memory.pose))
            said = self._verdict(read, earlier, chunk, gap)
            best = torch.maximum(best, torch.where(said.real >= REAL_AT, said.success, 0.0))
            earlier = read
        return (best + said.progress).view(len(now), many).to(plans.future.device)

    def _verdict(self, read: Reading, earlier: Reading, chunk: Tensor, gap: int):
        """The judge's; where fewer than `gap` actions lie between, it is not asked whether the film can be true."""
        model = self.model
        if chunk.shape[1] == gap:
            return model.sight.verdict(read, earlier, model.action_scale.scale(chunk))
        nothing = chunk.new_zeros(len(chunk), gap, chunk.shape[2])
        said = model.sight.verdict(read, read, nothing)
        return type(said)(said.success, said.progress, torch.ones_like(said.real))
