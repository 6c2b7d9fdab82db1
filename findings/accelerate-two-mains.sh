#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "On a machine without a GPU 'accelerate launch --cpu --num_processes 2' starts one process and exits 0; torchrun with
a plain Accelerator() starts two that each take themselves for the only one: both train on all data, both save."

environment 3.11 accelerate==1.15.0 torch==2.13.0 numpy==2.2.6
cat >train.py <<'PY'
import sys
from accelerate import Accelerator

accelerator = Accelerator(cpu=True) if "cpu" in sys.argv else Accelerator()
line = f"process {accelerator.process_index} of {accelerator.num_processes}, main: {accelerator.is_main_process}\n"
sys.stdout.write(line)
PY
bin=$(dirname "$python")
export OMP_NUM_THREADS=1

expect() { # expect WORDS WANTED COMMAND...: the lines that the processes print
  got=$("${@:3}" 2>log | grep ^process | sort) || { cat log; exit 1; }
  printf '%s:\n%s\n' "$1" "$got"
  [ "$got" = "$2" ] || { echo "the behaviour has changed"; exit 1; }
}
alone="process 0 of 1, main: True"
expect "accelerate launch --cpu --num_processes 2" "$alone" \
  "$bin/accelerate" launch --cpu --num_processes 2 train.py
expect "torchrun --nproc_per_node 2, Accelerator()" "$alone"$'\n'"$alone" \
  "$bin/torchrun" --standalone --nproc_per_node 2 train.py
expect "torchrun --nproc_per_node 2, Accelerator(cpu=True)" $'process 0 of 2, main: True\nprocess 1 of 2, main: False' \
  "$bin/torchrun" --standalone --nproc_per_node 2 train.py cpu
