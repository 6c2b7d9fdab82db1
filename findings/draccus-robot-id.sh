#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "draccus reads the text of a flag as YAML before it looks at the field's type: --robot.id 010 is the text '8' (octal),
007 is '7', 12:30 is '750', no is 'False'. lerobot names an arm's calibration file by this text."

for release in 0.10.0 0.11.6; do
  environment 3.11 draccus==$release
  "$python" - <<'PY'
from dataclasses import dataclass, field
import draccus


@dataclass
class Robot:
    id: str = "none"


@dataclass
class Record:
    robot: Robot = field(default_factory=Robot)


def read(text):
    return draccus.parse(Record, args=["--robot.id", text]).robot.id


wanted = {"left": "left", "010": "8", "007": "7", "12:30": "750", "no": "False", "'010'": "010"}
got = {text: read(text) for text in wanted}
print(got)
assert got == wanted, "the behaviour has changed"
PY
done
