# Shared by the findings; sourced, never run. Works in a temporary folder that is gone afterwards.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Nothing of the caller's Python leaks in, nothing is written to the home folder, no GPU, no network once installed.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PYTHONNOUSERSITE=1 PYTHONWARNINGS=ignore CUDA_VISIBLE_DEVICES="" TMPDIR=$work HF_HOME=$work/hf HF_HUB_OFFLINE=1
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} PIP_DISABLE_PIP_VERSION_CHECK=1

# find_python 3.MINOR: print the oldest interpreter from there to 3.13, looked for in PATH, then among pyenv's.
find_python() {
  local minor candidate
  for minor in 11 12 13; do
    [ "$minor" -ge "${1#3.}" ] || continue
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python; do
      "$candidate" -c 'import sys, venv; print(sys.executable)' 2>/dev/null && return
    done
  done
  echo "findings: needs Python $1 or newer, up to 3.13, with its venv module" >&2
  return 1
}

# environment 3.MINOR PACKAGE==VERSION...: a virtual environment of exactly these; $python is its interpreter.
# Findings that ask for the same share one where FINDINGS_VENVS names a folder, as `make findings` does.
environment() {
  local folder base
  folder=${FINDINGS_VENVS:-$work}/$(printf '%s\n' "$@" | cksum | cut -d' ' -f1)
  python=$folder/bin/python

  if [ ! -e "$folder/.ready" ]; then
    base=$(find_python "$1")
    if command -v uv >/dev/null; then
      uv venv -q --clear --python "$base" "$folder"
      uv pip install -q --python "$python" "${@:2}"
    else
      "$base" -m venv --clear "$folder"
      "$python" -m pip install -q "${@:2}" 2> >(grep -v '^WARNING' >&2)
    fi
    touch "$folder/.ready"
  fi

  "$python" - "${@:2}" <<'PY'
import platform, re, sys
from importlib.metadata import version

names = [re.split(r"[\[=]", argument)[0] for argument in sys.argv[1:]]
print("Versions: Python", platform.python_version() + ",", ", ".join(f"{name} {version(name)}" for name in names))
PY
}

# behaviour "WORDS": what happens, said before it is shown.
behaviour() { printf 'Behaviour: %s\n' "$1"; }
