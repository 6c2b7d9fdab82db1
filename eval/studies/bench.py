"""What `understudy bench WHAT --out FILE` wrote, as a study for RESULTS.md.

    understudy study bench FILE --out eval/records/bench/NAME.json

Measures nothing; the tables are those of `eval/bench/tables.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..bench.tables import bench_study


@dataclass(frozen=True, kw_only=True)
class BenchStudy:
    """Turn the numbers of a bench into a study."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("file",)

    file: Path  # what `understudy bench WHAT --out FILE` wrote
    out: Path  # file of the study

    def run(self) -> None:
        print(bench_study(json.loads(self.file.read_text())).write(self.out))
