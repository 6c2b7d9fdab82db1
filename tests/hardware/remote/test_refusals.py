"""What a server refuses, by name, and plans nothing for."""

import dataclasses
import pickle
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from understudy.hardware.remote.limits import Limits
from understudy.hardware.remote.line import RemoteError
from understudy.hardware.remote.messages import Answer, Frames
from understudy.hardware.remote.place import Place
from understudy.hardware.remote.serve import Serve
from understudy.hardware.remote.wire import pack

from .conftest import Raw, build, first_ask

TOKEN = "a-token-of-enough-letters"


def test_the_token(policy, serve, raw, connect, tmp_path):
    server, address = serve(policy, token=TOKEN)
    for token in (None, "another-token-of-letters", TOKEN[:-1]):
        with pytest.raises(InvalidStatus, match="401"):
            raw(address, token=token)
    assert server.served.strangers == 3 and server.served.clients == 0
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert connect(f"{address}?token_file={tmp_path / 'token'}").window == policy.window
    with pytest.raises(RemoteError, match="refuses .401.: a token is needed"):
        connect(address)


def test_other_computers_are_let_in_by_a_token_alone():
    with pytest.raises(ValueError, match="--host 0.0.0.0 lets other computers in: give --token-file"):
        Place(host="0.0.0.0")
    with pytest.raises(ValueError, match="give --delay and --latency to the client"):
        Serve(policy="runs/it", delay=3)
    assert Place(host="0.0.0.0", token=TOKEN) and Place(host="::1") and Place(host="localhost")


def test_tls(policy, serve, connect, tmp_path):
    import shutil
    import ssl
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    _, address = serve(policy, tls=context)
    assert address.startswith("wss://") and connect(f"{address}?ca={cert}").window == policy.window
    with pytest.raises(RemoteError, match="certificate"):
        connect(address)


def test_another_version_is_refused(policy, serve, raw):
    _, address = serve(policy)
    assert "speaks version 1, a test speaks 2" in raw(address).greet(version=2).reason


class Mark:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def told(client, key, **changes):
    """The frames of a first ask with one changed."""
    frames = dict(first_ask(client.welcome).frames)
    return frames | {key: dataclasses.replace(frames[key], **changes)}


STATE = "observation.state"
WRONG = {
    "a pickle": (lambda c, p: pickle.dumps(Mark(p)), "are no message"),
    "a pickle in a field": (lambda c, p: ask(c, task=pickle.dumps(Mark(p))), "task must be a text"),
    "text": (lambda c, p: "hello", "bytes, not text"),
    "another message": (lambda c, p: pack(c.welcome), "expected ask, got 'welcome'"),
    "a field too many": (lambda c, p: ask(c, extra=1), "ask has no field 'extra'"),
    "a field too few": (lambda c, p: ask(c, without="seed"), "ask lacks the field 'seed'"),
    "objects": (
        lambda c, p: ask(c, now={"dtype": "|O", "shape": [1], "data": b"12345678"}),
        "ask.now has numbers of '|O'",
    ),
    "bytes that lack": (
        lambda c, p: ask(c, now={"dtype": "<i8", "shape": [2**40], "data": b""}),
        "ask.now does not hold the bytes",
    ),
    "another shape": (lambda c, p: ask(c, now=np.zeros((1, 1), np.int64)), "ask.now must hold 1..64 lanes"),
    "too many plans": (lambda c, p: ask(c, plans=1000), "ask.plans must be within 1..256"),
    "not finite": (lambda c, p: ask(c, actions=np.full((1, 3, 2), np.nan, np.float32)), "ask.actions is not finite"),
    "another session": (lambda c, p: ask(c, session="0" * 32), "of another session"),
    "out of order": (lambda c, p: ask(c, number=7), "ask 7 came out of order; number 0 is next"),
    "a frame that is not told": (lambda c, p: ask(c, now=np.full(1, 9)), "names a frame that the window does not read"),
    "another key": (lambda c, p: ask(c, frames={}), "ask.frames must be of observation.state"),
    "a vector too long": (
        lambda c, p: ask(c, frames=told(c, STATE, values=np.zeros((1, 3), np.float32))),
        r"ask.frames[observation.state] must be <f4 [1, 2]",
    ),
    "a lane that is not there": (
        lambda c, p: ask(c, frames=told(c, STATE, lane=np.full(1, 5))),
        "names a lane that is not there",
    ),
}


def ask(client, without=None, **changes):
    """A first ask, changed as nobody may."""
    import msgpack

    from understudy.hardware.remote.wire import _default

    values = msgpack.unpackb(pack(first_ask(client.welcome))) | changes
    values.pop(without, None)
    return msgpack.packb(values, default=_default)


def test_wrong_messages_are_refused_and_the_session_goes_on(policy, serve, raw, tmp_path):
    server, address = serve(policy, limits=Limits(faults=100))
    client = raw(address)
    client.greet()
    for name, (make, reason) in WRONG.items():
        reply = client.say(make(client, tmp_path / "mark"))
        assert not isinstance(reply, Answer) and reason in reply.reason, f"{name}: {reply}"
        if reply.number == 0:  # its turn was taken
            client.close()
            client = raw(address)
            client.greet()
    assert server.served.asks == 0 and server.served.refused == len(WRONG) and not (tmp_path / "mark").exists()
    right = pack(first_ask(client.welcome))
    assert isinstance(client.say(right), Answer)
    assert "ask 0 was said before; number 1 is next" in client.say(right).reason and server.served.asks == 1


def test_who_goes_on_is_hung_up_on(policy, serve, raw):
    _, address = serve(policy, limits=Limits(faults=3))
    client = raw(address)
    client.greet()
    for _ in range(3):
        client.say(b"x")
    with pytest.raises(ConnectionClosed, match="3 messages were refused"):
        client.socket.recv(timeout=10)


def test_oversized_slow_and_silent_ones_are_hung_up_on(policy, serve, raw):
    server, address = serve(policy, limits=Limits(message=10_000, slow=0.4, idle=3.0))
    client = raw(address)
    client.greet()
    with pytest.raises(ConnectionClosed, match="1009"):
        client.say(bytes(10_001))

    begun, client = time.monotonic(), raw(address)
    client.greet()
    client.socket.socket.sendall(b"\x82\xfe\x20\x00" + bytes(4) + b"drop")  # 8,192 bytes are announced
    with pytest.raises(ConnectionClosed):
        client.socket.recv(timeout=10)
    assert time.monotonic() - begun < 2.9

    client = raw(address)
    client.greet()
    with pytest.raises(ConnectionClosed, match="silent for more than 3 s"):
        client.socket.recv(timeout=20)
    assert server.served.asks == 0


def test_a_fast_client_is_made_to_wait(policy, serve, raw):
    _, address = serve(policy, limits=Limits(rate=20.0, faults=1000))
    client = raw(address)
    client.greet()
    begun = time.monotonic()
    for _ in range(12):
        client.say(b"x")
    assert time.monotonic() - begun > 9 / 20


def test_pictures_of_more_than_a_mebibyte_pass_and_are_not_deflated(serve):
    """1.8 MB in one message; a client that offers deflate does not get it."""
    from websockets.sync.client import connect

    from understudy.configs.spec import IMAGES

    pictures = (IMAGES + "top", IMAGES + "wrist")
    _, address = serve(build(pictures=True))
    client = Raw.__new__(Raw)
    client.socket = connect(address, subprotocols=["understudy"], compression="deflate", max_size=None, proxy=None)
    assert client.socket.protocol.extensions == []
    welcome = client.greet()
    noise = np.random.default_rng(0).integers(0, 256, (1, 480, 640, 3), np.uint8)
    zero = np.zeros(1, np.int64)
    frames = {key: Frames(lane=zero, tick=zero, values=noise, jpeg=None) for key in pictures}
    state = Frames(lane=zero, tick=zero, values=np.zeros((1, 2), np.float32), jpeg=None)
    message = pack(first_ask(dataclasses.replace(welcome, inputs=()), frames={STATE: state} | frames))
    assert len(message) > 1.8e6
    assert "must be |u1 [1, 24, 32, 3]" in client.say(message).reason  # it came, and was read
    client.close()


def test_thinking_longer_than_the_keepalive_does_not_cut_the_line(serve):
    from websockets.sync.client import connect

    slow = build()
    plan = slow.plan
    slow.plan = lambda *words: time.sleep(1.0) or plan(*words)
    _, address = serve(slow)
    client = Raw.__new__(Raw)
    client.socket = connect(
        address, subprotocols=["understudy"], compression=None, ping_interval=0.1, ping_timeout=0.4, proxy=None
    )
    client.greet()
    assert isinstance(client.say(first_ask(client.welcome)), Answer)
    client.close()


def test_a_jpeg_of_another_size_is_not_decoded(seeing_policy, serve, raw):
    import cv2

    from understudy.configs.spec import IMAGES

    _, address = serve(seeing_policy, limits=Limits(faults=100))
    client = raw(address)
    client.greet()
    zero = np.zeros(1, np.int64)
    state = Frames(lane=zero, tick=zero, values=np.zeros((1, 2), np.float32), jpeg=None)
    huge = cv2.imencode(".jpg", np.zeros((3000, 3000, 3), np.uint8))[1].tobytes()
    for number, (data, reason) in enumerate(((huge, "of 3000x3000"), (b"none", "no JPEG"), (huge[:300], "no JPEG"))):
        picture = Frames(lane=zero, tick=zero, values=None, jpeg=(data,))
        frames = {STATE: state} | {IMAGES + name: picture for name in ("top", "wrist")}
        message = first_ask(dataclasses.replace(client.welcome, inputs=()), number=number, frames=frames)
        assert reason in client.say(message).reason
