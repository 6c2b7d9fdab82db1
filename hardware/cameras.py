"""Cameras that are always ahead: a thread each, the newest picture with the moment of its capture."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

WARM = 5.0  # s until the first picture
OLD = 1.0  # s, the age of a picture that is given out no more

Read = Callable[[], tuple[np.ndarray, float]]  # a picture (h, w, 3) RGB, and when it came


class Camera:
    """A camera of OpenCV's: `index` a number, a device or an address. Size in pixels."""

    def __init__(self, name: str, index: int | str, width: int = 640, height: int = 480, fps: float = 30.0):
        self.name, self.index, self.size, self.fps = name, index, (height, width), fps
        self._lock = threading.Lock()
        self._newest: tuple[np.ndarray, float] | None = None
        self._failed: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to capture. Raises ConnectionError: no such camera, taken by another program, or another size."""
        read, end = self._connect()
        self._thread = threading.Thread(target=self._run, args=(read, end), name=f"camera {self.name}", daemon=True)
        self._thread.start()
        last = time.monotonic() + WARM
        while self._newest is None and self._failed is None and time.monotonic() < last:
            time.sleep(0.01)
        if self._newest is None:
            self.close()
            raise ConnectionError(f"camera '{self.name}': {self._failed or f'no picture within {WARM:g} s'}")

    def _connect(self) -> tuple[Read, Callable[[], None]]:
        """(waits for the next picture, closes the camera). The former raises ConnectionError, as this does."""
        import cv2

        source = cv2.VideoCapture(self.index)
        if not source.isOpened():
            raise ConnectionError(f"camera '{self.name}' ({self.index}) does not open: unplugged, or used by a program")
        height, width = self.size
        for setting, value in ((cv2.CAP_PROP_FRAME_WIDTH, width), (cv2.CAP_PROP_FRAME_HEIGHT, height)):
            source.set(setting, value)
        source.set(cv2.CAP_PROP_FPS, self.fps)
        source.set(cv2.CAP_PROP_BUFFERSIZE, 1)

        def read() -> tuple[np.ndarray, float]:
            worked, picture = source.read()
            moment = time.monotonic()
            if not worked:
                raise ConnectionError("it gives no more pictures")
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), moment

        return read, source.release

    def _run(self, read: Read, end: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                picture, moment = read()
            except ConnectionError as error:
                self._failed = str(error)
                break
            if picture.shape[:2] != self.size:
                h, w = picture.shape[:2]
                self._failed = f"it gives {w} x {h} pixels, {self.size[1]} x {self.size[0]} were asked for"
                break
            with self._lock:
                self._newest = picture, moment
        end()

    def newest(self) -> tuple[np.ndarray, float]:
        """The newest picture (h, w, 3) RGB and when it came, s on `time.monotonic()`. Raises ConnectionError."""
        with self._lock:
            found = self._newest
        if found is None or self._failed is not None or time.monotonic() - found[1] > OLD:
            raise ConnectionError(f"camera '{self.name}': {self._failed or f'no picture for {OLD:g} s'}")
        return found

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
