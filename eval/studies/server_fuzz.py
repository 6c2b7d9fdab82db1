"""Whether anything but a right message makes a policy server plan, fall or grow.

    understudy study server_fuzz --out OUT.json

Messages of every wrong kind are sent on loopback, by clients that have greeted. A message is either refused, and
nothing was planned for it, or it is answered, and then it was a right one after all (a changed bit of a number makes
another number): it is read again here by the same rules. After each kind a client gets the same plan as before, bit
for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.command import command_of
from ...configs.plugins import lookup
from ...configs.progress import Progress
from ..ledger.study import Study

COLUMNS = (
    "message",
    "n",
    "refused",
    "answered, and right",
    "hung up on",
    "planned without an answer",
    "wrong plans after",
)
PATIENCE = 30.0  # s that an answer may take
RENEWED = 200  # messages after which a client begins anew


@dataclass(frozen=True, kw_only=True)
class ServerFuzz:
    """Send a policy server messages of every wrong kind; count what it made of them."""

    messages: int = 120_000  # in all
    kinds: tuple[str, ...] = ()  # of messages; default all
    seed: int = 0  # of what is drawn
    out: Path  # file of the study

    def __post_init__(self) -> None:
        for kind in self.kinds:
            lookup("kind of messages", kind, KINDS)
        if self.messages < len(KINDS):
            raise ValueError(f"messages must be at least {len(KINDS)}")

    def run(self) -> None:
        study = fuzz(self)
        print(study.markdown())
        print(study.write(self.out))


def fuzz(settings: ServerFuzz) -> Study:
    """Serve a small policy in this process and send it everything."""
    from ...hardware.remote.desk import Thinker
    from ...hardware.remote.limits import Limits
    from ...hardware.remote.place import Place
    from ...hardware.remote.server import PolicyServer, serving
    from ...policies.agent.agent import Agent

    limits = Limits(faults=10**9, rate=1e6, clients=4, message=2**20)
    server = PolicyServer(Thinker(Agent(_planner(), lanes=1)), place=Place(port=0), limits=limits)
    kinds = settings.kinds or tuple(KINDS)
    rows, before = [], _resident()
    each = settings.messages // len(kinds)
    with serving(server) as address, Progress("server_fuzz", each * len(kinds), "messages") as progress:
        right = _plan(address)
        for number, kind in enumerate(kinds):
            progress.update(number * each, kind)
            rng = np.random.default_rng([settings.seed, list(KINDS).index(kind)])
            rows.append(_row(kind, each, rng, server, address, right))
        progress.update(each * len(kinds))
    total = ("all", *(sum(row[place] for row in rows) for place in range(1, len(COLUMNS))))
    notes = (
        f"Seed {settings.seed}; {total[1]:,} messages on loopback, {total[2]:,} refused. Resident memory of server and "
        f"clients together grew by {(_resident() - before) / 2**20:.0f} MiB.",
        "Hung up on: text too long, or a message that ends the conversation; the next client is let in.",
    )
    return Study(
        title="Messages that a policy server must refuse",
        command=command_of(settings, "study server_fuzz", without=("out",)) + " --out FILE.json",
        columns=COLUMNS,
        rows=(*rows, total),
        notes=notes,
    )


def _row(kind: str, count: int, rng: np.random.Generator, server, address: str, right: bytes) -> tuple:
    client, refused, answered, hung, silent = _Client(address), 0, 0, 0, 0
    for number in range(count):
        if number % RENEWED == RENEWED - 1 or client.gone:
            client.close()
            client = _Client(address)
        asks = server.served.asks
        message = KINDS[kind](client, rng)
        outcome = client.say(message)
        planned = server.served.asks - asks
        refused += outcome == "refused"
        hung += outcome == "hung up"
        if outcome == "answered":
            _check_right(message, client)
            answered += 1
            client.number += 1
        silent += planned != (outcome == "answered")
    client.close()
    return kind, count, refused, answered, hung, silent, int(_plan(address) != right)


class _Client:
    """Greets, and then says anything."""

    def __init__(self, address: str):
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        from ...hardware.remote.messages import SUBPROTOCOL, VERSION, Hello, Refusal, Welcome
        from ...hardware.remote.wire import pack, unpack

        self._socket = connect(
            address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            proxy=None,
            ping_interval=None,
            max_size=None,
        )
        self._socket.send(pack(Hello(version=VERSION, client="fuzz")))
        self.welcome: Welcome = unpack(self._socket.recv(timeout=PATIENCE), Welcome, Refusal)
        self.number, self.gone, self.said = 0, False, b""

    def ask(self, **changes: Any) -> bytes:
        """A right message."""
        from ...hardware.remote.wire import pack

        return pack(replace(blank_ask(self.welcome, self.number), **changes))

    def say(self, message: bytes | str) -> str:
        """answered, refused or hung up."""
        from websockets.exceptions import ConnectionClosed

        from ...hardware.remote.messages import Answer, Refusal
        from ...hardware.remote.wire import unpack

        try:
            self._socket.send(message)
            reply = unpack(self._socket.recv(timeout=PATIENCE), Answer, Refusal)
        except ConnectionClosed:
            self.gone = True
            return "hung up"
        return "answered" if isinstance(reply, Answer) else "refused"

    def close(self) -> None:
        self._socket.close()


def _check_right(message: bytes | str, client: _Client) -> None:
    """Raise WireError where what was answered is no right message."""
    from ...hardware.remote.messages import Ask
    from ...hardware.remote.wire import WireError, unpack

    ask = unpack(message, Ask)
    if (ask.session, ask.number) != (client.welcome.session, client.number):
        raise WireError("an ask of another session or number was answered")


def _plan(address: str) -> bytes:
    """The first plan that a new client gets for zeros."""
    from ...hardware.remote.messages import Answer
    from ...hardware.remote.wire import unpack

    client = _Client(address)
    client._socket.send(client.ask())
    answer = unpack(client._socket.recv(timeout=PATIENCE), Answer)
    client.close()
    return answer.future.tobytes()


def blank_ask(welcome: Any, number: int) -> Any:
    """A right ask of one lane that has seen zeros, of a policy without pictures."""
    from ...hardware.remote.messages import Ask, Frames

    zero, body = np.zeros(1, np.int64), welcome.embodiment
    offers, dims = body.offers(), len(body.action)

    def blank(key: str) -> Frames:
        return Frames(lane=zero, tick=zero, values=np.zeros((1, len(offers[key])), np.float32), jpeg=None)

    return Ask(
        session=welcome.session,
        number=number,
        plans=1,
        seed=0,
        starts=zero,
        replans=zero,
        now=zero,
        fresh=np.ones(1, bool),
        frames={key: blank(key) for key in welcome.inputs},
        captured={},
        actions=np.zeros((1, len(welcome.recall), dims), np.float32),
        obs_valid=np.zeros((1, len(welcome.observe)), bool),
        action_valid=np.zeros((1, len(welcome.recall)), bool),
        task=None,
    )


def _planner() -> Any:
    import torch

    from ...configs.spec import STATE, Embodiment, Window
    from ...policies.learning.checkpoint import blank_scales
    from ...policies.models.diffusion import DiffusionConfig
    from ...policies.networks.mlp import MLPConfig

    names = ("a", "b")
    body = Embodiment(
        name="fuzz",
        action=names,
        action_units=("rad", "rad"),
        limits=((-1.0, 1.0),) * 2,
        rate=10.0,
        state=names,
        state_units=("rad", "rad"),
    )
    torch.manual_seed(0)
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), recall=(-2, -1), horizon=4),
        inputs=(STATE,),
        network=MLPConfig(width=16, depth=1, condition_width=8),
        n_action_steps=2,
    )
    return config.build(body, blank_scales(body)).eval()


# the kinds: (client, rng) -> what is sent


def _noise(client: _Client, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(0, 400)))


def _cut(client: _Client, rng: np.random.Generator) -> bytes:
    right = client.ask()
    return right[: int(rng.integers(0, len(right)))]


def _flipped(client: _Client, rng: np.random.Generator) -> bytes:
    right = bytearray(client.ask())
    for place in rng.integers(0, len(right), int(rng.integers(1, 9))):
        right[place] ^= 1 << int(rng.integers(8))
    return bytes(right)


def _spliced(client: _Client, rng: np.random.Generator) -> bytes:
    right = client.ask()
    begin, end = sorted(rng.integers(0, len(right), 2).tolist())
    return right[:begin] + rng.bytes(int(rng.integers(0, 40))) + right[end:]


def _fields(client: _Client, rng: np.random.Generator) -> bytes:
    """A field that lacks, is another's, of another kind, or nobody's; at any depth."""
    import msgpack

    values = msgpack.unpackb(client.ask())
    place = values
    for _ in range(int(rng.integers(0, 3))):
        inside = [key for key, value in place.items() if isinstance(value, dict) and value]
        if not inside:
            break
        place = place[inside[int(rng.integers(len(inside)))]]
    keys = list(place)
    key = keys[int(rng.integers(len(keys)))]
    change = int(rng.integers(4))
    if change == 0:
        del place[key]
    elif change == 1:
        place[f"{key}_"] = place[key]
    elif change == 2:
        place[key] = place[keys[int(rng.integers(len(keys)))]]
    else:
        place[key] = _odd(rng)
    return msgpack.packb(values)


def _odd(rng: np.random.Generator) -> Any:
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        2**63,
        -(2**63),
        float("nan"),
        float("inf"),
        "",
        "x" * 2000,
        b"",
        rng.bytes(32),
        [],
        [[[[1]]]],
        {},
        {"dtype": "|O", "shape": [1], "data": b"12345678"},
        {"dtype": "<f4", "shape": [2**40, 2**40], "data": b""},
        {"dtype": "<f4", "shape": [-1], "data": b"1234"},
        {"dtype": "<f4", "shape": [1], "data": b"\x00\x00\xc0\x7f"},
        {"dtype": "<M8[s]", "shape": [1], "data": b"12345678"},
        {"dtype": "<i8", "shape": [1], "data": b"\xff" * 8},
        {"dtype": "<f4", "shape": [1, 2], "data": b"\x00" * 8},
    )
    return odd[int(rng.integers(len(odd)))]


def _pickled(client: _Client, rng: np.random.Generator) -> bytes:
    """What unpickling would run: a call of os.system, by hand, in each protocol's shape; and inside a right message."""
    import msgpack

    call = b"cos\nsystem\n(S'touch pickled'\ntR."
    bodies = (call, b"\x80\x04" + call, b"\x80\x02" + call, b"\x80\x05\x95" + len(call).to_bytes(8, "little") + call)
    body = bodies[int(rng.integers(len(bodies)))]
    if rng.random() < 0.5:
        return body
    values = msgpack.unpackb(client.ask())
    keys = list(values)
    values[keys[int(rng.integers(len(keys)))]] = body
    return msgpack.packb(values)


def _bomb(client: _Client, rng: np.random.Generator) -> bytes:
    """Little that says that it is much, or deep."""
    depth = int(rng.integers(10, 5000))
    bombs = (
        b"\x91" * depth,
        b"\x81\xa1a" * depth,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    )
    return bombs[int(rng.integers(len(bombs)))]


def _replayed(client: _Client, rng: np.random.Generator) -> bytes:
    """A right message that was said, of a number to come, or of another session."""
    turn = int(rng.integers(3))
    if turn == 0:
        return client.ask(number=client.number - 1 - int(rng.integers(5)))
    if turn == 1:
        return client.ask(number=client.number + 1 + int(rng.integers(5)))
    return client.ask(session=rng.bytes(16).hex())


def _impossible(client: _Client, rng: np.random.Generator) -> bytes:
    """Well formed, and no policy can plan for it: a clock, a lane, a step, a number of plans."""
    zero = np.zeros(1, np.int64)
    changes: tuple[dict[str, Any], ...] = (
        {"plans": 0},
        {"plans": 10**6},
        {"now": zero - 1},
        {"now": zero + 2**50},
        {"now": np.zeros(0, np.int64)},
        {"now": np.zeros(10**4, np.int64)},
        {"frames": {}},
        {"fresh": np.zeros(1, bool), "now": zero + 10},
        {"actions": np.full((1, 2, 2), np.nan, np.float32)},
        {"obs_valid": np.zeros((1, 9), bool)},
    )
    return client.ask(**changes[int(rng.integers(len(changes)))])


def _text(client: _Client, rng: np.random.Generator) -> str:
    return "".join(map(chr, rng.integers(32, 1000, int(rng.integers(0, 200)))))


def _oversized(client: _Client, rng: np.random.Generator) -> bytes:
    return bytes(2**20 + 1 + int(rng.integers(1000)))


KINDS: dict[str, Callable[[_Client, np.random.Generator], bytes | str]] = {
    "noise": _noise,
    "cut off": _cut,
    "bits flipped": _flipped,
    "spliced": _spliced,
    "fields": _fields,
    "pickles": _pickled,
    "bombs": _bomb,
    "replayed or out of order": _replayed,
    "impossible": _impossible,
    "text": _text,
    "oversized": _oversized,
}


def _resident() -> int:
    """Bytes of this process in memory; 0 where nobody says."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
