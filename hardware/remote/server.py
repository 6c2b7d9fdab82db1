"""The server: it listens, lets in who has the token, and answers asks for plans, ours and openpi's.

The loop of this module does nothing but read, check and write; plans are made at the `Desk`, so that pings are answered
while the policy computes. Messages are not compressed: deflating a noisy picture takes longer than sending it.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .desk import Desk, Job, PolicyError, Thinker, Thought, stated
from .limits import PING, Limits, Pace, hang_up_on_slow, watched_connection
from .memory import keep_freed
from .messages import SUBPROTOCOL, VERSION, Answer, Ask, Hello, Refusal, Welcome
from .openpi import PiClient, PiKeys, pack_plain, unpack_plain
from .place import Place, Served
from .session import LANES, Session
from .wire import WireError, pack, unpack

if TYPE_CHECKING:
    from websockets.asyncio.server import Request, Response, Server, ServerConnection

CLOSING = 2.0  # s that a client may take to say goodbye
HEALTH = "/healthz"  # answered with OK, as openpi's servers do


class PolicyServer:
    """Answers asks for plans until it is told to stop.

    Args:
        about: what the policy is, for clients: `serve.ABOUT`.
        block: see `Desk`.
        task: the text that the policy reads where a client gives none; None: it reads none.
        tell: gives the policy another text.
        keys: how openpi's clients name observations.
    """

    def __init__(
        self,
        thinker: Thinker,
        *,
        place: Place,
        limits: Limits | None = None,
        about: Mapping[str, str] | None = None,
        block: int = 8,
        threads: int = 1,
        task: str | None = None,
        tell: Callable[[str], object] | None = None,
        keys: PiKeys | None = None,
    ):
        self.thinker, self.place, self.limits = thinker, place, limits or Limits()
        self.about, self.task, self.keys = dict(about or {}), task, keys or PiKeys()
        self.served = Served()
        self._desk = Desk(thinker, block=block, threads=threads, tell=tell)
        self._clients = 0
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, ready: Callable[[str], None] = lambda address: None) -> None:
        """Listen until `stop`. `ready` is called with the address. Raises OSError: the port is taken."""
        keep_freed()
        try:
            asyncio.run(self._run(ready))
        finally:
            self._desk.close()

    def stop(self) -> None:
        """From any thread, or a signal: answer what is being computed, say goodbye, end."""
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self, ready: Callable[[str], None]) -> None:
        from websockets.asyncio.server import serve

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._meet,
            self.place.host,
            self.place.port,
            ssl=self.place.tls,
            select_subprotocol=_choose,
            process_request=self._let_in,
            create_connection=watched_connection(),
            compression=None,
            max_size=self.limits.message,
            max_queue=4,
            ping_interval=PING,
            ping_timeout=PING,
            close_timeout=CLOSING,
            logger=_quiet(),
        ) as server:
            ready(self.place.address(_port(server)))
            await self._stop.wait()
            server.close(code=1001, reason="the server ends")
            await server.wait_closed()

    def _let_in(self, connection: ServerConnection, request: Request) -> Response | None:
        """Before a connection becomes a websocket: the token, in constant time."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.place.token is None:
            return None
        given = request.headers.get("Authorization", "")
        kind, _, token = given.partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self.place.token.encode())
        if right and kind in ("Bearer", "Api-Key"):
            return None
        self.served.strangers += 1
        said = "the token is wrong" if given else "a token is needed"
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, f"{said}: --token-file of the server\n")

    async def _meet(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        if self._clients >= self.limits.clients:
            self.served.turned_away += 1
            await connection.close(1013, f"{self._clients} clients are served already; see --clients")
            return
        self._clients += 1
        self.served.clients += 1
        guard = asyncio.create_task(hang_up_on_slow(connection, self.limits.slow))
        talk = self._talk if connection.subprotocol == SUBPROTOCOL else self._talk_pi
        try:
            await talk(connection)
        except (ConnectionClosed, ConnectionAbortedError):
            pass
        except TimeoutError:
            await connection.close(1008, f"silent for more than {self.limits.idle:g} s")
        finally:
            self._clients -= 1
            guard.cancel()

    async def _talk(self, connection: ServerConnection) -> None:
        """One client of ours."""
        if not await self._greet(connection):
            return
        session = Session(secrets.token_hex(16), self.thinker)
        await connection.send(pack(self._welcome(session)))
        pace, faults = Pace(self.limits.rate), 0
        while faults < self.limits.faults:
            await pace.wait()
            data = await self._hear(connection)
            number = -1
            try:
                ask = unpack(data, Ask)
                number = ask.number
                session.check_turn(ask)
                session.check(ask)
                reply: Answer | Refusal = _answer(ask, await self._think(_job(session, ask, self.task)))
            except (WireError, PolicyError) as error:
                faults += isinstance(error, WireError)
                self.served.refuse(str(error))
                reply = Refusal(number=number, reason=str(error)[:1000])
            await connection.send(pack(reply))
        await connection.close(1008, f"{faults} messages were refused")

    async def _greet(self, connection: ServerConnection) -> bool:
        data = await self._hear(connection)
        try:
            hello = unpack(data, Hello)
            if hello.version != VERSION:
                raise WireError(f"this server speaks version {VERSION}, {hello.client[:40]} speaks {hello.version}")
        except WireError as error:
            self.served.refuse(str(error))
            await connection.send(pack(Refusal(number=-1, reason=str(error)[:1000])))
            await connection.close(1008, "no greeting")
            return False
        return True

    async def _talk_pi(self, connection: ServerConnection) -> None:
        """One client of openpi's: what the policy is, then observations in and actions out."""
        client = PiClient(self.thinker, self.keys, self.task)
        await connection.send(pack_plain(client.metadata(self.about)))
        pace, before = Pace(self.limits.rate), 0.0
        while True:
            await pace.wait()
            data = await self._hear(connection)
            begun = time.monotonic()
            try:
                thought = await self._think(client.job(unpack_plain(data)))
            except (WireError, PolicyError) as error:
                self.served.refuse(str(error))
                await connection.send(str(error))  # text is an error to these clients
                await connection.close(1011, "see the message before")
                return
            await connection.send(pack_plain(client.answer(thought, before)))
            before = time.monotonic() - begun

    async def _hear(self, connection: ServerConnection) -> bytes | str:
        async with asyncio.timeout(self.limits.idle):
            return await connection.recv()

    async def _think(self, job: Job) -> Thought:
        thought = await asyncio.wrap_future(self._desk.put(job))
        self.served.asks += 1
        self.served.thought += thought.thought
        self.served.slowest = max(self.served.slowest, thought.thought)
        return thought

    def _welcome(self, session: Session) -> Welcome:
        thinker = self.thinker
        return Welcome(
            version=VERSION,
            session=session.name,
            body=thinker.embodiment.to_json(),
            inputs=thinker.inputs,
            observe=thinker.window.observe,
            recall=thinker.window.recall,
            horizon=thinker.planner.window.horizon,
            n_action_steps=thinker.n_action_steps,
            ensemble=thinker.ensemble,
            sizes=thinker.sizes,
            candidates=thinker.candidates,
            reads_text=self.task is not None,
            task=self.task or "",
            lanes=LANES,
            most=thinker.most,
            policy=self.about,
        )


def _job(session: Session, ask: Ask, task: str | None) -> Job:
    """`task`: the text where the ask gives none, so that another client's is not read in its place.

    Raises WireError: the policy reads a text, and neither has one.
    """

    def noise() -> Any:
        from ...policies.policy import LaneNoise

        return LaneNoise(ask.seed, ask.starts, ask.replans)

    text = stated(task, ask.task)
    return Job(past=lambda: session.past(ask), noise=noise, plans=ask.plans, task=text)


def _answer(ask: Ask, thought: Thought) -> Answer:
    return Answer(
        session=ask.session,
        number=ask.number,
        past=thought.past,
        future=thought.future,
        start=thought.start,
        waited=thought.waited,
        thought=thought.thought,
        lanes=thought.lanes,
    )


def _choose(connection: ServerConnection, offered: Any) -> Any:
    """Our messages where they are asked for, openpi's where nothing is."""
    from websockets.exceptions import NegotiationError

    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    if offered:
        raise NegotiationError(f"{', '.join(offered)[:100]} is not spoken here; {SUBPROTOCOL} is")
    return None


def _quiet() -> logging.Logger:
    """A logger that says nothing: what strangers send fills no terminal; `Served` counts it."""
    logger = logging.getLogger("understudy.serve")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _port(server: Server) -> int:
    return next(iter(server.sockets)).getsockname()[1]


@contextmanager
def serving(server: PolicyServer) -> Iterator[str]:
    """The server in a thread of this process, until the end of the block; gives its address."""
    address: list[str] = []
    failed: list[OSError] = []
    begun = threading.Event()

    def ready(where: str) -> None:
        address.append(where)
        begun.set()

    def work() -> None:
        try:
            server.run(ready)
        except OSError as error:
            failed.append(error)
            begun.set()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    begun.wait()
    if failed:
        raise failed[0]
    try:
        yield address[0]
    finally:
        server.stop()
        thread.join()
