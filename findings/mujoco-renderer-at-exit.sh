#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "a mujoco.Renderer that is still open when Python ends writes two tracebacks of errors that are ignored, and the
status is 0: with the first one that draws through EGL MuJoCo registers an exit function that ends EGL before Python
frees the renderer. An exit function that closes it, registered after it was made, runs first, and nothing is written."

environment 3.11 mujoco==3.9.0
cat >draw.py <<'PY'
import atexit
import sys

import mujoco

model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1"/></worldbody></mujoco>')
held = [mujoco.Renderer(model, 32, 32)]
if sys.argv[1] == "closed":
    atexit.register(held[0].close)
PY

for how in "left open" closed; do
  status=0
  MUJOCO_GL=egl "$python" draw.py "$how" 2>said || status=$?
  errors=$(grep -c EGLError said || true)
  echo "$how: status $status, errors of EGL that were ignored: $errors"
  wanted=0
  [ "$how" = closed ] || wanted=2
  if [ "$status" != 0 ] || [ "$errors" != "$wanted" ]; then
    echo "the behaviour has changed" >&2
    exit 1
  fi
done
