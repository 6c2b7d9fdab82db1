"""The judge behind a URL, against a real HTTP server of this machine that speaks the protocol, well and badly."""

import base64
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from understudy.eval.judge import endpoint
from understudy.eval.judge.judges import JudgeError, VlmJudge
from understudy.eval.judge.prompt import Rubric, question, read_answer

from .conftest import film

SECRET = "sk-a-secret-of-the-test"


def is_green(url: str) -> bool:
    """Whether a data URL shows more green than red."""
    kind, data = url.split(",", 1)
    assert kind == "data:image/png;base64"
    blue, green, red = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR).mean((0, 1))
    return green > red


def sees(body: dict) -> str:
    """What a model that looks would say: Yes if the last frame is green."""
    parts = body["messages"][1]["content"]
    frames = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return "Yes" if is_green(frames[-1]) else "No."


class Serves(BaseHTTPRequestHandler):
    """`server.plays` are what it does in turn, the last one again and again; `server.asked` keeps what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        plays = self.server.plays
        (plays.pop(0) if len(plays) > 1 else plays[0])(self, body)

    def log_message(self, *_):
        pass

    def send(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def says(text):
    def play(served, body):
        served.send(
            200, {"choices": [{"message": {"role": "assistant", "content": text(body) if callable(text) else text}}]}
        )

    return play


def cut_off(served, _):
    """One that had more to say than it might."""
    served.send(200, {"choices": [{"message": {"content": "Yes"}, "finish_reason": "length"}]})


def refuses(status, body=b"", **headers):
    return lambda served, _: served.send(status, body, **headers)


def sleeps(served, _):
    time.sleep(1.5)
    served.close_connection = True


def drips(served, _):
    """A byte now and then, each in time."""
    served.send_response(200)
    served.send_header("Content-Length", "1000")
    served.end_headers()
    for _ in range(20):
        try:
            served.wfile.write(b" ")
            served.wfile.flush()
        except OSError:
            break
        time.sleep(0.1)
    served.close_connection = True


def breaks_off(served, _):
    served.send_response(200)
    served.send_header("Content-Length", "1000")
    served.end_headers()
    served.wfile.write(b"{")
    served.close_connection = True


@contextmanager
def serving(*plays):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Serves)
    server.plays, server.asked, server.daemon_threads = list(plays), [], True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("A_JUDGES_KEY", SECRET)


def put(url, won=True, **settings):
    """Ask about a film."""
    config = VlmJudge(**{"model": "tiny-vlm", "url": url, "retries": 2, "timeout": 5.0} | settings)
    asked = question(Rubric(task="Turn it green."), tuple(film(won)[::4]))
    return endpoint.Endpoint(config).answer(asked, 3)


def test_films_are_sent_as_the_protocol_has_it_and_answered():
    with serving(says(sees)) as (server, url):
        assert put(url, True, key="A_JUDGES_KEY", tokens=5) == "Yes"
        assert put(url + "/", False, temperature=0.7, seed=10) == "No."
    (path, headers, body), (_, plain, warm) = server.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vlm", 5, 0) and "seed" not in body
    assert [part["type"] for part in body["messages"][1]["content"]] == ["text", *["image_url"] * 4, "text"]
    assert body["messages"][0]["role"] == "system" and "Turn it green." in body["messages"][1]["content"][0]["text"]
    assert "Authorization" not in plain and (warm["temperature"], warm["seed"]) == (0.7, 13)


def test_one_that_is_busy_is_asked_again_and_not_forever():
    with serving(refuses(503, b"loading"), refuses(429, b"", Retry_After="0.02"), says("No")) as (server, url):
        assert put(url) == "No" and len(server.asked) == 3
    with serving(refuses(500, b"no memory")) as (server, url):
        with pytest.raises(JudgeError, match=r"asked 3 times\): status 500 .*no memory"):
            put(url)
        assert len(server.asked) == 3
    with serving(breaks_off, says("Yes")) as (server, url):
        assert put(url) == "Yes" and len(server.asked) == 2


@pytest.mark.parametrize("slow", [sleeps, drips])
def test_one_that_is_slow_is_given_up(slow):
    with serving(slow) as (_, url):
        begun = time.monotonic()
        with pytest.raises(JudgeError, match="no answer within 0.3 s"):
            put(url, timeout=0.3, retries=1)
        assert time.monotonic() - begun < 4


def test_one_that_is_not_there_is_said():
    with serving(says("x")) as (_, url):
        pass
    with pytest.raises(JudgeError, match=r"chat/completions \(asked 3 times\): cannot be reached: .*refused"):
        put(url)


@pytest.mark.parametrize(
    ("play", "said"),
    [
        (refuses(401, b"who are you?"), "look at `key`"),
        (refuses(404, b"no such model"), "ends before /chat/completions"),
        (refuses(302, b"", Location="http://127.0.0.1:9/"), "it has moved"),
        (refuses(400, {"error": {"message": "too many images"}}), "too many images"),
        (refuses(200, b"<html>a login page</html>"), "another protocol than OpenAI's: <html>a login"),
        (refuses(200, {"choices": []}), "another protocol"),
        (refuses(200, {"choices": {"a": 1}}), "another protocol"),
        (refuses(200, {"choices": ["Yes"]}), "another protocol"),
        (refuses(200, b"[" * 100_000), "another protocol"),
        (refuses(200, b" " * 5_000_000), "is none"),
    ],
)
def test_a_refusal_is_said_at_once(play, said):
    with serving(play) as (server, url):
        with pytest.raises(JudgeError, match=said):
            put(url)
        assert len(server.asked) == 1


def test_nothing_said_and_parts_are_answers_too():
    with serving(says(None), says([{"type": "text", "text": "Yes"}, {"type": "text", "text": "."}])) as (_, url):
        assert put(url) == "" and put(url) == "Yes."


def test_the_beginning_of_an_answer_is_none():
    with serving(cut_off) as (_, url):
        assert read_answer(put(url)) is None


def test_the_key_is_in_no_message(monkeypatch):
    with serving(refuses(401, f"bad key {SECRET}".encode())) as (_, url):
        with pytest.raises(JudgeError, match="A_JUDGES_KEY") as refused:
            put(url, key="A_JUDGES_KEY")
    assert SECRET not in str(refused.value) and "[key]" in str(refused.value)
    with pytest.raises(JudgeError, match="NO_SUCH_KEY .* is not set"):
        put("http://127.0.0.1:9/v1", key="NO_SUCH_KEY")
    monkeypatch.setenv("BROKEN_KEY", "a\nb")
    with pytest.raises(JudgeError, match="letters that no key has"):
        put("http://127.0.0.1:9/v1", key="BROKEN_KEY")
    config = VlmJudge(model="m", url="http://elsewhere.example/v1", key="A_JUDGES_KEY")
    with pytest.warns(UserWarning, match="elsewhere.example unencrypted"):
        endpoint.Endpoint(config)
