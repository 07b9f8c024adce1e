#!/usr/bin/env bash
# Runs a script that needs PyTorch; status 77 (CTest: skipped) where PyTorch cannot be had.
#   with_torch.sh SCRIPT [ARGUMENT ...]
set -euo pipefail
if ! python=$("$(dirname "${BASH_SOURCE[0]}")/../../scripts/peers-venv"); then
  echo "skipped: ${1##*/} needs PyTorch, and scripts/peers-venv could not get it (see above)"
  exit 77
fi
exec "$python" "$@"
