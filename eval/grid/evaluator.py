"""A process that runs the evaluations of a grid one after the other, so that workers and imports outlive each of them.

The grid's process hands it commands on its standard input; each runs as it would alone, with its own log, and answers
with its exit status in a file beside it. An evaluator that dies takes one evaluation with it, as a command of its own
would, and the next one starts another. It ends with the grid, or when it is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ...configs.children import start as start_process
from ...configs.files import replace_text

STATUS = ".status"  # beside the log of an evaluation
REST = 60.0  # s without an evaluation after which the workers are given up: a training needs the memory
INTERRUPTED = 130


class Evaluation:
    """One evaluation, in place of a process of its own."""

    def __init__(self, evaluator: Evaluator, answer: Path):
        self.returncode: int | None = None
        self._evaluator, self._answer = evaluator, answer

    @property
    def pid(self) -> int:
        return self._evaluator.process.pid

    def poll(self) -> int | None:
        if self.returncode is not None:
            return self.returncode
        ended = self._evaluator.process.poll()  # first: what it answered before it ended counts
        if self._answer.is_file():
            self.returncode = int(self._answer.read_text())
            self._answer.unlink()
        elif ended is not None:
            self.returncode = ended
        if self.returncode is not None:
            self._evaluator.busy = False
        return self.returncode

    def send_signal(self, number: int) -> None:
        self._evaluator.process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        """Until the evaluator has ended, which an interrupted one does."""
        code = self._evaluator.process.wait(timeout)
        self.poll()
        return code


class Evaluator:
    """The process, as the grid sees it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]):
        self.busy = False
        log = folder / "evaluator.log"
        self.process = start_process((__name__, folder), log, subprocess.PIPE, environment)
        assert self.process.stdin is not None  # it was asked for
        self._orders = self.process.stdin

    def begin(self, words: Sequence[object], log: Path) -> Evaluation:
        answer = log.with_name(log.name + STATUS)
        answer.unlink(missing_ok=True)
        self.busy = True
        order = {"words": [str(word) for word in words], "log": str(log), "answer": str(answer)}
        with contextlib.suppress(BrokenPipeError):  # `poll` says that it has ended
            self._orders.write((json.dumps(order) + "\n").encode())
            self._orders.flush()
        return Evaluation(self, answer)

    def close(self) -> None:
        self._orders.close()


class Evaluators:
    """As many as work at the same time.

    Args:
        folder: of the grid.
        environment: variables that they get.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]):
        self._folder, self._environment = folder.resolve(), environment
        self._made: list[Evaluator] = []

    def begin(self, words: Sequence[object], log: Path) -> Evaluation:
        """Run a command, `understudy` left out, in an evaluator that is idle."""
        self._made = [one for one in self._made if one.process.poll() is None]
        idle = next((one for one in self._made if not one.busy), None)
        if idle is None:
            idle = Evaluator(self._folder, self._environment)
            self._made.append(idle)
        return idle.begin(words, log)

    def close(self) -> None:
        for one in self._made:
            one.close()
        for one in self._made:
            try:
                one.process.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        self._made.clear()


def works_for(folder: Path, words: bytes) -> bool:
    """Whether the words of a process are those of an evaluator of the grid that this cell's folder lies in."""
    return __name__.encode() in words and str(folder.resolve().parents[1]).encode() in words


def serve() -> None:
    """The life of an evaluator."""
    from ...configs.machine import prepare

    prepare()
    from ...__main__ import main
    from ..rollout.standing import standing

    outputs = [os.dup(number) for number in (1, 2)]
    with standing() as crews:
        for order in _orders(crews.close):
            with open(order["log"], "ab") as log:
                for number in (1, 2):
                    os.dup2(log.fileno(), number)
            status = main(order["words"])
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, before in enumerate(outputs, start=1):
                os.dup2(before, number)
            replace_text(Path(order["answer"]), str(status or 0))
            if status == INTERRUPTED:
                return


def _orders(rest: Callable[[], object]) -> Iterator[dict]:
    """Orders as they come; `rest` is called where none comes for a while."""
    held = b""
    while True:
        while b"\n" not in held:
            ready, _, _ = select.select([0], [], [], REST)
            if not ready:
                rest()
                continue
            read = os.read(0, 1 << 16)
            if not read:
                return
            held += read
        line, _, held = held.partition(b"\n")
        yield json.loads(line)


if __name__ == "__main__":
    serve()
