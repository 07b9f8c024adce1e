#!/usr/bin/env bash
# portable_cuda.sh TREE: the release, too, finds the CUDA toolkit of the machine.
set -euo pipefail
tree=$1
# shellcheck source=scripts/lib.sh
source "$tree/scripts/lib.sh"
if ! nvcc=$(find_nvcc); then
  echo "skipped: no CUDA toolkit on this machine"
  exit 77
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cmake --preset portable -S "$tree" -B "$place" -D CUVAE_CUDA=ON -D CUVAE_TESTS=OFF \
  -D "CUDAToolkit_ROOT=$(dirname "$(dirname "$nvcc")")" >"$place/log" 2>&1 || {
  cat "$place/log"
  exit 1
}
grep -- '-- CUDA: toolkit' "$place/log"
