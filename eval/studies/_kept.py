"""What a long study has done so far, a line a part beside its file: the same command goes on where it was ended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...configs.files import read_lines
from ..ledger.provenance import provenance


class Kept:
    """Parts by their names, JSON-able.

    Args:
        out: file of the study; the parts lie beside it.
        settings: of the study, a dataclass; parts of other settings, or of other code, are not mixed with these.

    Raises ValueError: such a file is there.
    """

    def __init__(self, out: Path, settings: Any):
        self.path = out.with_name(f".{out.stem}.parts.jsonl")
        asked = {field.name: repr(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
        head = {"settings": asked, "code": provenance()["code"]}
        lines, _ = read_lines(self.path)
        if lines and lines[0] != head:
            raise ValueError(f"{self.path} holds parts of a run with other settings or code: remove it to begin anew")
        self._parts = {line["part"]: line["value"] for line in lines[1:]}
        out.parent.mkdir(parents=True, exist_ok=True)
        if not lines:
            self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        elif not self.path.read_bytes().endswith(b"\n"):  # half a line of what was ended
            self.path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Work that keeps its parts: interrupted, it says so; finished, the file is removed."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {len(self)} parts are kept, the same command goes on") from None
        self.path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._parts)

    def get(self, part: str, make: Callable[[], Any]) -> Any:
        """What `make` gave, now or in an earlier run."""
        if part not in self._parts:
            value = json.loads(json.dumps(make()))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": part, "value": value}) + "\n")
            self._parts[part] = value
        return self._parts[part]
