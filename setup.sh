#!/usr/bin/env bash
# Make the virtual environment with everything installed: bash setup.sh [FOLDER]   (default .venv)
# Works from any folder. CPU build of torch where there is no GPU. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${1:-.venv}

python=${PYTHON:-}
for candidate in python3.11 python3.12 python3; do
  [ -n "$python" ] && break
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
  then python=$candidate; fi
done
[ -n "$python" ] || { echo "setup: no Python 3.11 or 3.12 found. Install one (Debian: apt-get install python3.11 python3.11-venv) or set PYTHON=/path/to/python3.11" >&2; exit 1; }

if ! "$python" -m venv "$venv"; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "setup: '$python -m venv' failed. On Debian or Ubuntu: apt-get install python$version-venv" >&2
  exit 1
fi

# System libraries: headless OpenGL for MuJoCo, FFmpeg for the video check against stock lerobot.
libraries=(libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6 ffmpeg)
missing=()
if command -v dpkg-query >/dev/null; then
  for library in "${libraries[@]}"; do
    dpkg-query -W -f='${Status}' "$library" 2>/dev/null | grep -q 'ok installed' || missing+=("$library")
  done
fi
if [ ${#missing[@]} -gt 0 ]; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  if "${sudo[@]}" true 2>/dev/null; then
    echo "setup: installing system libraries: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq && DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
      echo "setup: could not install ${missing[*]}; pictures or videos may not work. 'understudy doctor' tells which." >&2
  else
    echo "setup: may not install system libraries. Ask for: sudo apt-get install ${missing[*]}   ('understudy doctor' tells what is missing)" >&2
  fi
fi

"$venv/bin/python" -m pip install -q --disable-pip-version-check "uv>=0.7"
install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -c constraints.txt -e ".[all]")
links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || true)}}
if [ -n "$links" ]; then # wheels that the owner of this machine configured for pip serve uv too
  UV_FIND_LINKS="${links// /,}" "${install[@]}"
elif command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
  "${install[@]}"
elif ! "${install[@]}" --torch-backend=cpu; then
  echo "setup: the CPU build of torch was not reachable; taking the CUDA build instead (about 4 GB of downloads)" >&2
  "${install[@]}"
fi
echo "setup: done. Next: $venv/bin/understudy doctor"
