#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "pip upgrades mujoco 3.9.0 to 4.0.0 and reports success, 'pip check' finds nothing wrong, and 'import mujoco'
fails: 4.0 consists of three packages in one folder, and removing 3.9 afterwards takes files of the new core along."

# pip itself is what is looked at, so no uv here.
base=$(find_python 3.11)
"$base" -m venv venv
python=venv/bin/python
for version in 3.9.0 4.0.0; do
  "$python" -m pip install -q -U "mujoco==$version" 2>/dev/null
  echo "pip install -U mujoco==$version: exit $?"
done
"$python" -m pip check

"$python" -c "import mujoco" 2>error && { echo "import mujoco works: the behaviour has changed"; exit 1; }
grep ImportError error

# The cure: the three packages once more, by force.
"$python" -m pip install -q --force-reinstall --no-deps mujoco==4.0.0 mujoco-core==4.0.0 mujoco-studio==4.0.0 2>/dev/null
"$python" -c "import mujoco; print('after a forced reinstall:', mujoco.__version__)"
