#!/usr/bin/env bash
# blas.sh PROGRAM: OpenBLAS runs its AVX-512 kernels where the CPU has them, and those that the user
# names otherwise; products from many threads at once are right with either.
set -euo pipefail
program=$1
cpu_has() { # every FLAG
  local flag
  for flag in "$@"; do grep -qwm1 "$flag" /proc/cpuinfo || return 1; done
}
expect() { # NAME OUTPUT
  echo "$2"
  if [[ $(head -n 1 <<<"$2") != "$1" ]]; then
    echo "expected $1"
    exit 1
  fi
}

output=$(env -u OPENBLAS_CORETYPE "$program")
if cpu_has avx512f avx512bw avx512dq avx512vl avx512cd; then
  expect SkylakeX "$output"
else
  echo "$output (no AVX-512 here)"
fi
if cpu_has avx2 fma; then
  expect Haswell "$(OPENBLAS_CORETYPE=Haswell "$program")"
fi
