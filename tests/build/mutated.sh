#!/usr/bin/env bash
# `cuvae-simt compare` of the default model must notice bugs that the SIMT runner makes in the
# kernels (src/simt/mutation.h): it ends with status 6, or with an error that is the runner's or a
# kernel's report.
#   mutated.sh SOURCE_DIR cuvae-simt compare ARGUMENT...
set -euo pipefail
source_dir=$1
shift

# "FILE:LINE" of the line of a kernel file that has this text.
place() {
  local line
  line=$(grep -nF -m 1 -- "$2" "$source_dir/$1") || {
    echo "no '$2' in $1" >&2
    exit 1
  }
  echo "$1:${line%%:*}"
}

export CUVAE_SIMT_STREAMS=deferred CUVAE_SIMT_ORDER=greedy
out=$(mktemp)
trap 'rm -f "$out"' EXIT

failures=0
# The line that tells whether a kernel came to the mutated place.
told() {
  local wanted="cuvae-simt: mutation $1: $2"
  grep -qF -- "$wanted" "$out" || {  # within a line, where standard output is flushed later
    echo "not told: '$wanted'; the output ends with: $(tail -n 2 "$out")"
    failures=$((failures + 1))
  }
}
try() {
  local mutation=$1 status=0
  CUVAE_SIMT_MUTATION=$mutation "${@:2}" >"$out" 2>&1 || status=$?
  local last
  last=$(tail -n 1 "$out")
  # 6: another result; 1: a fault that a kernel has raised; 4: the runner's report.
  if [[ $status == 6 || ($status == [14] && $last == "cuvae: error: "*) ]]; then
    echo "$mutation: status $status: $last"
  else
    echo "$mutation: NOT NOTICED: status $status: $last"
    failures=$((failures + 1))
  fi
  told "$mutation" made
}

gemm=kernels/gemm.cuh
reduction=kernels/reduction.cuh
try "skip_barrier@$(place $gemm '__syncthreads();  // the slab is there')" "$@"
try "skip_copy_wait@$(place $gemm 'cp_async_wait<')" "$@"
try "skip_producer_wait@$(place $gemm 'wait_for_producers()')" "$@"
try "early_read@$(place $gemm 'wait_for_producers()')" "$@"
try "early_read@$(place kernels/elementwise.cuh 'wait_for_producers()')" "$@" --no-fuse
try "skip_shuffle@$(place $reduction '__shfl_xor_sync')" "$@"
try "shift_thread" "$@"
try "shift_block" "$@"
try "drop_event" "$@" --streams 3 --exec eager

# Where no kernel comes by, nothing is changed, and it is said.
status=0
nowhere=skip_barrier@$gemm:1
CUVAE_SIMT_MUTATION=$nowhere "$@" >"$out" 2>&1 || status=$?
[[ $status == 0 ]] || {
  echo "a mutation that no kernel comes to: status $status"
  failures=$((failures + 1))
}
told "$nowhere" "no kernel came to such a place, nothing was changed"

status=0
CUVAE_SIMT_MUTATION=skip_everything "$@" >"$out" 2>&1 || status=$?
[[ $status == 2 ]] || {
  echo "a mutation that there is not: status $status"
  failures=$((failures + 1))
}
exit $((failures > 0))
