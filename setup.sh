#!/usr/bin/env bash
# Make the virtual environment with everything installed: bash setup.sh [FOLDER]   (default .venv)
# List the interpreters that would do, newest first:      bash setup.sh --pythons
# Only files whose hashes stand in requirements.txt:       HASHES=1 bash setup.sh [FOLDER]
# Minutes of a core sooner, each first import slower:      COMPILE=0 bash setup.sh [FOLDER]
# Works from any folder. Takes the newest supported Python; PYTHON=... chooses another. CPU build of torch where there is no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
supported=(3.13 3.12 3.11)

works() { # INTERPRETER VERSION: it runs (pyenv's shims of versions that are not active do not), and can make environments
  "$1" -c 'import ensurepip, sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$2" >/dev/null 2>&1
}

find_python() { # VERSION: the first interpreter that works: on PATH, uv's own, pyenv's newest
  local version=$1 candidate
  {
    type -aP "python$version" python3
    command -v uv >/dev/null && uv python find --managed-python --no-python-downloads "$version"
    printf '%s\n' "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/"python$version" | sort -rV
  } 2>/dev/null | while read -r candidate; do
    if works "$candidate" "$version"; then echo "$candidate"; break; fi
  done
}

pythons() { # "VERSION INTERPRETER" of each supported version that is found
  local version found
  for version in "${supported[@]}"; do
    found=$(find_python "$version" || true)
    if [ -n "$found" ]; then echo "$version $found"; fi
  done
}

if [ "${1:-}" = --pythons ]; then pythons; exit; fi
venv=${1:-.venv}

python=${PYTHON:-}
if [ -z "$python" ]; then read -r _ python < <(pythons) || true; fi
if [ -z "$python" ]; then
  echo "setup: none of Python ${supported[*]} found that runs and can make environments." >&2
  echo "Install one (Debian: apt-get install python3.11 python3.11-venv), or set PYTHON=/path/to/python" >&2
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case " ${supported[*]} " in
  *" $version "*) echo "setup: taking Python $version ($python)" ;;
  *) echo "setup: $python is Python $version; supported are ${supported[*]}" >&2; exit 1 ;;
esac

fresh=
if [ -f "$venv/pyvenv.cfg" ]; then
  before=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo "that does not run")
  if [ "$before" != "$version" ]; then echo "setup: $venv held Python $before; making it anew"; fresh=--clear; fi
fi
if ! "$python" -m venv $fresh "$venv"; then
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

large="3 to 5 GB of downloads, 7 to 9 GB on the disk"
compile=--compile-bytecode
[ "${COMPILE:-1}" != 0 ] || compile=--no-compile-bytecode
one_build() { "$venv/bin/python" -c 'import torch, torchvision; torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)'; }

# With hashes: every file must be one that requirements.txt names, what builds packages too. That is the torch of the
# package index; a folder of wheels or the CPU build have other hashes.
if [ "${HASHES:-0}" != 0 ]; then
  locked() { # PACKAGE: its lines of requirements.txt
    awk -v name="$1==" 'index($0, name) == 1 {inside = 1} inside; inside && !/\\$/ {exit}' requirements.txt
  }
  tools=$(mktemp)
  trap 'rm -f "$tools"' EXIT
  { locked uv; locked setuptools; } >"$tools"
  echo "setup: with hashes; torch as the package index has it ($large)"
  env -u PIP_FIND_LINKS "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r "$tools"
  verified=(env -u UV_FIND_LINKS "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation)
  "${verified[@]}" "$compile" --require-hashes -r requirements.txt
  "${verified[@]}" -e .
  one_build || { echo "setup: torchvision does not work beside this torch" >&2; exit 1; }
  echo "setup: done, every package by its hash. Next: $venv/bin/understudy doctor"
  exit
fi

"$venv/bin/python" -m pip install -q --disable-pip-version-check "uv>=0.7"
install=("$venv/bin/uv" pip install --quiet "$compile" --python "$venv/bin/python" -c constraints.txt -e ".[all]")
links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || true)}}
[ -z "$links" ] || export UV_FIND_LINKS="${links// /,}" # wheels that the owner of this machine configured for pip serve uv too

if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
  "${install[@]}"
elif ! "${install[@]}" --torch-backend=cpu 2>/dev/null; then # what is wrong besides, the next line's command says too
  echo "setup: the CPU build of torch was not reachable; taking what the package index has, the CUDA build ($large)" >&2
  "${install[@]}"
fi

# A folder of wheels may hold torch of one build and the index torchvision of another: then torchvision cannot be imported.
if ! one_build 2>/dev/null; then
  echo "setup: torch and torchvision come from different builds; taking both anew from the package index ($large)" >&2
  env -u UV_FIND_LINKS "${install[@]}" --reinstall-package torch --reinstall-package torchvision --reinstall-package torchcodec
  one_build || { echo "setup: torchvision still does not work beside this torch" >&2; exit 1; }
fi
echo "setup: done. Next: $venv/bin/understudy doctor"
