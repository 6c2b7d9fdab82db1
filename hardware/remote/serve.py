"""The verb `serve`: a policy for robots whose computer has no GPU. Opens it as an evaluation would, then listens."""

from __future__ import annotations

import os
import secrets
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from ...configs.ends import listening
from ...configs.extras import pip_install
from ...configs.former import FORMERLY
from ...policies.agent.open import Acting, check_policy_names, instruct, open_agent
from .limits import Limits
from .line import read_token
from .openpi import PiKeys
from .server import Place, PolicyServer

ABOUT = ("type", "step", "fingerprint", FORMERLY)  # what clients are told of the policy


@dataclass(frozen=True, kw_only=True)
class Serve(Acting):
    """Plan for clients over the network: understudy's (--policy ws://HOST:PORT) and openpi's."""

    RENAMED: ClassVar[dict[str, str]] = {}  # none of its flags had another name
    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    block: int = 8  # environments of all clients that are planned for at once; 1: each ask alone, the same bits always
    policy_seed: int = 0  # seed of the sampling noise for openpi's clients; understudy's say theirs
    host: str = "127.0.0.1"  # address to listen at; another than this computer's own needs a token
    port: int = 8765  # 0: any that is free
    token_file: str | None = None  # file with the token that clients must have; written where there is none
    tls_cert: str | None = None  # certificate of the server (PEM), with --tls_key: then clients use wss://
    tls_key: str | None = None  # its private key (PEM)
    clients: int = 8  # connections at a time
    max_mib: float = 64.0  # MiB of one message
    rate: float = 500.0  # messages a second of one client; faster ones are made to wait
    slow: float = 10.0  # seconds that one message may take to come
    idle: float = 600.0  # seconds that a client may be silent
    openpi: str | None = None  # YAML file for openpi's clients: {names: {their key: ours}, steps: executed of a chunk}

    def __post_init__(self) -> None:
        Place(host=self.host, port=self.port, token=self.token_file)  # refuses an open door
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs both --tls_cert and --tls_key")
        if self.monitor or self.alarm is not None:
            raise ValueError("the monitor and its alarm run where the arm is: give them to the client")
        if self.delay or self.latency != "wait":
            raise ValueError("delays are made up for where the arm is: give --delay and --latency to the client")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port {self.port} is not within 0..65535")
        for name in ("clients", "max_mib", "rate", "slow", "idle", "block"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} {getattr(self, name)}: it must be above 0")

    def check_names(self) -> None:
        """Refuse names and files that are not there, before anything heavy is imported."""
        check_policy_names(self)
        for name in ("tls_cert", "tls_key", "openpi"):
            value = getattr(self, name)
            if value is not None and not Path(os.path.expandvars(value)).is_file():
                raise FileNotFoundError(f"--{name} {value}: there is no such file")

    def run(self) -> None:
        """Serve until Ctrl-C or SIGTERM; then say what was served."""
        server = open_server(self)
        with listening(server.stop):
            server.run(self._ready)
        raise KeyboardInterrupt(str(server.served))

    def _ready(self, address: str) -> None:
        token = f"?token_file={self.token_file}" if self.token_file else ""
        print(f"serving {self.policy} at {address}; clients: --policy '{address}{token}'. Ctrl-C ends it.", flush=True)
        if self.token_file and self.tls_cert is None and not address.startswith("ws://127."):
            print(
                "warning: without --tls_cert whoever listens on the network reads the token and the plans", flush=True
            )


def open_server(config: Serve) -> PolicyServer:
    """The server of these settings, its policy tried once; not listening yet. Raises as `open_agent`."""
    from ...policies.policy import Planner  # noqa: F401  (torch, before the thread that uses it)
    from .desk import Thinker
    from .warm import warm_up

    try:
        import msgpack  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(f"serve needs websockets and msgpack ({error}): {pip_install('serve')}") from error
    place = Place(host=config.host, port=config.port, token=_token(config.token_file), tls=_tls(config))
    keys = read_keys(config.openpi)
    agent, about = open_agent(config, None)
    thinker = Thinker(agent)
    warm_up(thinker)
    limits = Limits(
        clients=config.clients,
        message=int(config.max_mib * 2**20),
        rate=config.rate,
        slow=config.slow,
        idle=config.idle,
    )
    task = getattr(agent.planner, "task_text", None)
    return PolicyServer(
        thinker,
        place=place,
        limits=limits,
        about={key: str(about[key]) for key in ABOUT if about.get(key) is not None},
        block=config.block,
        threads=config.threads,
        task=task,
        tell=None if task is None else partial(instruct, agent.planner),
        keys=keys,
    )


def read_keys(file: str | None) -> PiKeys:
    """How openpi's clients name observations. Raises ValueError, OSError."""
    import yaml

    if file is None:
        return PiKeys()
    try:
        told = yaml.safe_load(Path(os.path.expandvars(file)).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--openpi {file} is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(told, dict) or not told.keys() <= {"names", "steps"}:
        raise ValueError(f"--openpi {file} must hold names and steps alone")
    names, steps = told.get("names") or {}, told.get("steps")
    texts = isinstance(names, dict) and all(isinstance(text, str) for pair in names.items() for text in pair)
    if not texts or not (steps is None or (type(steps) is int and steps >= 1)):
        raise ValueError(f"--openpi {file}: names is a map from their keys to ours, steps a number from 1 on")
    return PiKeys(names=names, steps=steps)


def _token(file: str | None) -> str | None:
    """The token of a file, which is written for its owner alone where there is none."""
    if file is None:
        return None
    path = Path(os.path.expandvars(file)).expanduser()
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(32) + "\n")
        print(f"wrote a new token to {path}; bring a copy of this file to the robot's computer")
    return read_token(path)


def _tls(config: Serve) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(os.path.expandvars(config.tls_cert), os.path.expandvars(config.tls_key))
    except (ssl.SSLError, OSError) as error:
        raise ValueError(
            f"--tls_cert {config.tls_cert} and --tls_key {config.tls_key} are no certificate with its key ({error})"
        ) from error
    return context
