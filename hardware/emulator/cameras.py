"""Rendered cameras of a coupled arm: newest frames for the same process, a stream for browsers, one for lerobot.

A thread of its own draws all cameras of one moment, copied while the bus is held, so that drawing never delays an
answer. `http://127.0.0.1:PORT/NAME` is motion JPEG, which browsers and `cv2.VideoCapture` open. lerobot's `zmq` camera
(JSON with base64 JPEGs) connects to the other port; that one needs pyzmq. The pictures of both are JPEGs of quality 90.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ...configs.plugins import lookup
from ...sim.rendering import renderer_class
from .bus import Bus
from .coupled import CoupledShafts

if TYPE_CHECKING:
    import mujoco

ENDS = 10.0  # s that a thread may take to end
QUALITY = 90  # of JPEG
BREAK = "frame"  # between pictures of a stream


class Cameras:
    """`with Cameras(bus, {"front": (480, 640)}) as cameras: seconds, picture = cameras.latest("front")`.

    Args:
        sizes: name of a camera of the scene -> (height, width) in px.
        rate: pictures a second.
        http: port of the streams, 0 for any free one, None for none. `address` says which.
        zmq: port for lerobot's zmq camera, None for none.

    Raises LookupError: the scene has no such camera; ValueError: the arm turns nothing that could be drawn;
    ImportError: pyzmq is missing; OSError: a port is taken.
    """

    def __init__(
        self,
        bus: Bus,
        sizes: Mapping[str, tuple[int, int]],
        rate: float = 30.0,
        http: int | None = 0,
        zmq: int | None = None,
    ):
        shafts = bus.chain.shafts
        if not isinstance(shafts, CoupledShafts):
            raise ValueError("cameras: nothing to see; give the arm a load")
        if rate <= 0:
            raise ValueError(f"cameras: {rate} pictures a second is not above 0")
        names = [shafts.model.camera(place).name for place in range(shafts.model.ncam)]
        for name in sizes:
            lookup("camera of the scene", name, dict.fromkeys(names))
        self.bus, self.sizes, self.rate, self._shafts = bus, dict(sizes), rate, shafts
        self.failed: BaseException | None = None
        self._new = threading.Condition()
        self._frames: dict[str, tuple[float, np.ndarray]] = {}
        self._stop = threading.Event()
        self._server = None if http is None else _serve(self, http)
        self._publisher = None if zmq is None else _Publisher(zmq)
        self._threads = [threading.Thread(target=self._run, name="cameras", daemon=True)]
        if self._server:
            self._threads.append(threading.Thread(target=self._server.serve_forever, name="streams", daemon=True))

    def __enter__(self) -> Cameras:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; raises what ended the drawing earlier."""
        self._stop.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join(ENDS)
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed

    @property
    def address(self) -> str | None:
        """Where the streams are; a camera's name follows."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/" if self._server else None

    def latest(self, name: str, after: float = -1.0, timeout: float = 10.0) -> tuple[float, np.ndarray]:
        """The chain's time in s and the newest picture (h, w, 3) uint8 RGB, of a time later than `after`.

        Raises TimeoutError, and LookupError for a camera that is not drawn.
        """
        lookup("drawn camera", name, self.sizes)

        def there() -> bool:
            return self.failed is not None or (name in self._frames and self._frames[name][0] > after)

        with self._new:
            if not self._new.wait_for(there, timeout) or self.failed is not None:
                raise TimeoutError(f"camera {name} gave no picture") from self.failed
            return self._frames[name]

    def _run(self) -> None:
        renderers: dict[tuple[int, int], Any] = {}
        try:
            self._draw_all(renderers)
        except Exception as error:  # shown by close() and latest()
            self.failed = error
            with self._new:
                self._new.notify_all()
        finally:
            for renderer in renderers.values():
                renderer.close()
            if self._publisher:
                self._publisher.close()

    def _draw_all(self, renderers: dict[tuple[int, int], Any]) -> None:
        import mujoco

        model, data = self._shafts.model, mujoco.MjData(self._shafts.model)
        for size in set(self.sizes.values()):
            renderers[size] = renderer_class()(model, *size)  # here: a GL context belongs to its thread

        while not self._stop.is_set():
            begin = time.monotonic()
            moment = self._copy(data)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)

            frames = {}
            for name, size in self.sizes.items():
                renderers[size].update_scene(data, name)
                frames[name] = moment, renderers[size].render()
            with self._new:
                self._frames = frames
                self._new.notify_all()
            if self._publisher:
                self._publisher.send(frames)
            self._stop.wait(max(0.0, begin + 1 / self.rate - time.monotonic()))

    def _copy(self, data: mujoco.MjData) -> float:
        """The scene's poses into `data`; the chain's time, s."""
        with self.bus.held() as chain:
            source = self._shafts.data
            data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = source.qpos, source.mocap_pos, source.mocap_quat
            return chain.time


def jpeg(picture: np.ndarray) -> bytes:
    """The JPEG of an (h, w, 3) uint8 array whose channels are in OpenCV's order."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded")
    return data.tobytes()


class _Publisher:
    """Frames as lerobot's `cameras/zmq` expects them: it decodes without turning BGR, so RGB goes in as it is."""

    def __init__(self, port: int):
        try:
            import zmq
        except ImportError as error:
            raise ImportError("cameras for lerobot need pyzmq: pip install 'lerobot[pyzmq-dep]'") from error
        self._zmq = zmq
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
        except zmq.ZMQError as error:
            self.close()
            raise OSError(f"port {port} cannot be served: {error}") from error

    def send(self, frames: Mapping[str, tuple[float, np.ndarray]]) -> None:
        images = {name: base64.b64encode(jpeg(picture)).decode() for name, (_, picture) in frames.items()}
        times = {name: moment for name, (moment, _) in frames.items()}
        self._socket.send_string(json.dumps({"timestamps": times, "images": images}))

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def _serve(cameras: Cameras, port: int) -> ThreadingHTTPServer:
    class Streams(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            if name not in cameras.sizes:
                self.send_error(404, f"no camera {name!r}; there are {', '.join(cameras.sizes)}")
                return
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BREAK}")
            self.end_headers()
            moment = -1.0
            try:
                while True:
                    moment, picture = cameras.latest(name, after=moment)
                    data = jpeg(picture[..., ::-1])
                    head = f"--{BREAK}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
            except (ConnectionError, TimeoutError):
                return  # who looked is gone, or the cameras are

        def log_message(self, *_: object) -> None:
            """Say nothing: standard error belongs to the command."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    return Server(("127.0.0.1", port), Streams)
