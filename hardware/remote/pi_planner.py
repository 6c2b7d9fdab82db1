"""A policy that an openpi server runs, as a `Planner`: `--policy openpi://HOST:PORT --embodiment FILE`.

The file says who acts, as any embodiment file does, and below `openpi` how that server names things:

    openpi:
      names: {observation.state: observation/state, observation.images.top: observation/image}  # ours: theirs
      prompt: prompt     # key of the text of the task; left out: none is sent
      horizon: 10        # actions of its chunks that are used
      n_action_steps: 5  # of them executed

Its server plans for one observation at a time, and draws its noise itself: equal seeds do not give equal plans.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.spec import Embodiment, EmbodimentError, Window
from ...policies.address import register_address
from .line import Address, Line
from .openpi import pack_plain, unpack_plain
from .planner import Reader
from .wire import WireError

if TYPE_CHECKING:
    from ...policies.policy import LaneNoise, Past, Plans

SCHEMES = {"openpi": "ws", "openpis": "wss"}
EXAMPLE = "openpi: {names: {observation.state: observation/state}, horizon: 10, n_action_steps: 5}"


@dataclass(frozen=True, kw_only=True)
class Named:
    """How an openpi server names things."""

    names: Mapping[str, str]  # our key -> theirs
    horizon: int
    n_action_steps: int
    prompt: str | None = None

    @classmethod
    def read(cls, values: Any, file: str) -> Named:
        """The part `openpi` of an embodiment file. Raises EmbodimentError."""
        if not isinstance(values, Mapping):
            raise EmbodimentError(f"{file} does not say how the server names observations; add: {EXAMPLE}")
        known = {"names", "horizon", "n_action_steps", "prompt"}
        wrong = [key for key in values if key not in known] or [
            key for key in ("names", "horizon") if key not in values
        ]
        if wrong:
            raise EmbodimentError(f"{file}: openpi.{wrong[0]} is missing, or not known; as in: {EXAMPLE}")
        names, horizon, prompt = values["names"], values["horizon"], values.get("prompt")
        steps = values.get("n_action_steps", horizon)
        texts = isinstance(names, Mapping) and names and all(isinstance(t, str) for pair in names.items() for t in pair)
        if not texts or type(horizon) is not int or type(steps) is not int or not 1 <= steps <= horizon:
            raise EmbodimentError(f"{file}: openpi cannot be {dict(values)!r:.200}; as in: {EXAMPLE}")
        if prompt is not None and not isinstance(prompt, str):
            raise EmbodimentError(f"{file}: openpi.prompt is the name of a key")
        return cls(names=dict(names), horizon=horizon, n_action_steps=steps, prompt=prompt)


class PiPlanner:
    """Plans that an openpi server draws; keeps `policy.Planner`, `Executes` and `Instructed`."""

    task_text: str | None = None

    def __init__(self, address: Address, embodiment: Embodiment, named: Named):
        offered = embodiment.offers()
        for key in named.names:
            if key not in offered:
                raise EmbodimentError(f"openpi.names has '{key}', but '{embodiment.name}' offers {', '.join(offered)}")
        self.embodiment, self.inputs, self.named = embodiment, tuple(named.names), named
        self.window, self.n_action_steps = Window(observe=(0,), horizon=named.horizon), named.n_action_steps
        instead = "leave openpi.prompt out of the --embodiment file where the server has a prompt of its own"
        self.language = None if named.prompt is None else Reader("", address.url, instead)
        self._line = Line(address, subprotocol=None, scheme="Api-Key")
        self.metadata = self._line.ask(None, unpack_plain)  # they say first who they are

    def to(self, device: Any) -> PiPlanner:
        """It computes elsewhere."""
        return self

    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Ask once for each of `n` plans of each lane.

        Raises:
            RemoteError: no plan that counts. ValueError: nobody said the text of the task that it reads.
        """
        import torch

        from ...policies.policy import Plans

        past = past.at(self.window)
        obs = {theirs: past.obs[ours][:, 0].cpu().numpy() for ours, theirs in self.named.names.items()}
        chunks = []
        for lane in range(len(past.now)):
            message = {key: value[lane] for key, value in obs.items()}
            if self.language is not None and self.named.prompt is not None:
                message[self.named.prompt] = self.language.stated()
            for _ in range(n):
                self._line.refuse_more()
                chunks.append(self._line.ask(pack_plain(message), self._read_actions))
        future = torch.from_numpy(np.stack(chunks)).unflatten(0, (-1, n)).to(past.actions.device)
        return Plans(future[:, :, :0], future, past.now)

    def close(self) -> None:
        """End the session."""
        self._line.close()

    def _read_actions(self, data: bytes | str) -> np.ndarray:
        """(H, D) float32."""
        if isinstance(data, str):
            lines = data.strip().splitlines()
            raise WireError(f"it refuses: {lines[-1][:300] if lines else 'without a reason'}")
        actions, dims = unpack_plain(data).get("actions"), len(self.embodiment.action)
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fi":
            raise WireError("its answer holds no array 'actions'")
        if actions.ndim != 2 or len(actions) < self.named.horizon or actions.shape[1] != dims:
            wanted = f"at least {self.named.horizon} actions of {dims} numbers"
            raise WireError(f"its actions are {list(actions.shape)}, not {wanted}")
        chunk = actions[: self.named.horizon].astype(np.float32)
        if not np.isfinite(chunk).all():
            raise WireError("it planned NaN or infinity")
        return chunk


@register_address(*SCHEMES)
def open_pi(address: str, embodiment: str | None = None) -> tuple[PiPlanner, dict]:
    """The planner at `openpi://HOST:PORT`, and what a manifest says of it.

    Raises:
        EmbodimentError: no file that says who acts. ValueError: no such address. RemoteError: no server there.
    """
    import yaml

    where = Address.read(address, SCHEMES)
    if embodiment is None:
        raise EmbodimentError(f"{address} does not say for whom it acts: give --embodiment FILE, with {EXAMPLE}")
    body = Embodiment.load(os.path.expandvars(embodiment))
    told = yaml.safe_load(Path(os.path.expandvars(embodiment)).read_text(encoding="utf-8"))
    planner = PiPlanner(where, body, Named.read(told.get("openpi"), embodiment))
    about = {key: str(value) for key, value in planner.metadata.items() if isinstance(value, (str, int, float))}
    return planner, {"path": address, "type": "openpi", "config": about}
