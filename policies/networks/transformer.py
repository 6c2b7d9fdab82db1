"""The transformer of long-memory policies: tokens with times, and masks written in these times.

After the PTP paper's code (arXiv 2505.09561; Diffusion Policy's decoder-only transformer): a memory of the time token
first and one token for each observed frame, each passed through a two-layer perceptron; action tokens that attend to
each other and to the memory; pre-norm, GELU, learned positions.

An action token at time tau sees frames and action tokens at times <= tau, and the time token. Frames and action tokens
from before the episode are not seen. Every row keeps the time token and the token itself, so no softmax is empty.

The memory of the frames does not depend on the noise: its keys and values in all layers are taken once a plan. Dropout
in training is of attention. Attention is written out, so that one-step models can differentiate forwards through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embed import FAST, SMOOTH, TimeEmbedding, embed_times
from .network import Layout, NetworkConfig

Memory = tuple[Tensor, Tensor, Tensor]  # keys and values (B, layers, heads, O, 2 * head width), and the two masks


@NetworkConfig.register_subclass("transformer")
@dataclass(frozen=True, kw_only=True)
class TransformerConfig(NetworkConfig):
    """Causal transformer over action tokens. The paper's size: width 256 (Transport: 768), depth 8, dropout 0.3."""

    RENAMED: ClassVar[dict[str, str]] = {"expand": "mlp_ratio"}  # former names that are still read

    width: int = 96  # width of a token
    depth: int = 3  # layers
    heads: int = 4  # heads of attention
    mlp_ratio: int = 4  # hidden width of a layer, in units of `width`
    dropout: float = 0.0  # dropout of attention, in training

    def __post_init__(self):
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width must be even and a multiple of heads, got {self.width} and {self.heads}")

    def build(self, layout: Layout, two_times: bool = False) -> TransformerDenoiser:
        return TransformerDenoiser(self, layout, two_times)


class TransformerDenoiser(nn.Module):
    """(x, t, context, gap) -> output of x's shape. See `network.Denoiser`."""

    masked: ClassVar[bool] = True

    def __init__(self, config: TransformerConfig, layout: Layout, two_times: bool = False):
        super().__init__()
        width = config.width
        self.layout, self.heads = layout, config.heads
        scale = SMOOTH if two_times else FAST
        self.time = TimeEmbedding(width, 4 * width, scale)

        # observed frames become memory
        self.frame = nn.Linear(layout.features, width)
        self.frame_place = nn.Parameter(torch.empty(len(layout.observe), width).normal_(0, 0.02))
        self.remember = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.remember_norm = nn.LayerNorm(width)

        # action tokens
        self.enter = nn.Linear(layout.dims, width)
        self.place = nn.Parameter(torch.empty(len(layout.actions), width).normal_(0, 0.02))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.leave_norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, layout.dims)
        self.gap = TimeEmbedding(width, 4 * width, scale) if two_times else None

        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

        # causal masks, in times
        past, future = torch.tensor(layout.actions)[:, None], torch.tensor(layout.actions)[None]
        self.register_buffer("among", future <= past, persistent=False)  # (T, T) row sees column
        self.register_buffer("across", torch.tensor(layout.observe)[None] <= past, persistent=False)  # (T, O)

    @property
    def passes(self) -> tuple[int, int]:
        """Each action goes through a token of its own."""
        return self.enter.in_features, self.enter.out_features

    def encode(self, frames: Tensor, seen: Tensor, present: Tensor) -> Memory:
        """(B, O, F) features, (B, O) and (B, T) masks -> keys and values of the frames in all layers, and the masks."""
        memory = self._memorise(self.frame(frames) + self.frame_place)
        held = torch.stack([layer.cross.remember(memory) for layer in self.layers], 1)
        itself = torch.eye(len(self.layout.actions), dtype=torch.bool, device=frames.device)
        among = (self.among & present[:, None, :]) | itself
        return held, among, self.across & seen[:, None, :]

    def forward(self, x: Tensor, t: Tensor, context: Memory, gap: Tensor | None = None) -> Tensor:
        """x (M, T, D), t and gap (M,) or (1,), context of M -> (M, T, D)."""
        held, among, across = context
        time = self._memorise(embed_times(self.time, self.gap, t, gap)[:, None])
        always = across.new_ones(*across.shape[:2], 1)
        among, across = (_bias(mask, x.dtype) for mask in (among, torch.cat([always, across], -1)))
        h = self.enter(x) + self.place
        for i, layer in enumerate(self.layers):
            first = layer.cross.remember(time).expand(len(x), -1, -1, -1)
            h = layer(h, torch.cat([first, held[:, i]], 2), among, across)
        return self.leave(self.leave_norm(h))

    def _memorise(self, tokens: Tensor) -> Tensor:
        return self.remember_norm(self.remember(tokens))


class _Attention(nn.Module):
    """Attention of several heads, with keys and values that can be taken beforehand."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.ask = nn.Linear(config.width, config.width)
        self.tell = nn.Linear(config.width, 2 * config.width)
        self.leave = nn.Linear(config.width, config.width)

    def remember(self, tokens: Tensor) -> Tensor:
        """(M, L, width) -> keys and values (M, heads, L, 2 * head width)."""
        return self.tell(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, tokens: Tensor, held: Tensor, bias: Tensor) -> Tensor:
        """tokens (M, T, width) look at `held`; bias (M, 1, T, L) is added to the scores."""
        asked = self.ask(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = held.chunk(2, -1)
        weights = (asked @ keys.transpose(-1, -2) * asked.shape[-1] ** -0.5 + bias).softmax(-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.leave((weights @ values).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Attention among the actions, attention to the memory, perceptron; each on normalised tokens and added."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = _Attention(config), _Attention(config)
        self.rise = nn.Linear(width, config.mlp_ratio * width)
        self.fall = nn.Linear(config.mlp_ratio * width, width)

    def forward(self, h: Tensor, memory: Tensor, among: Tensor, across: Tensor) -> Tensor:
        tokens = self.norms[0](h)
        h = h + self.own(tokens, self.own.remember(tokens), among)
        h = h + self.cross(self.norms[1](h), memory, across)
        return h + self.fall(F.gelu(self.rise(self.norms[2](h))))


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(M, T, L) bool -> (M, 1, T, L): 0 where it may look, minus infinity where not. No row is all infinite."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))[:, None]
