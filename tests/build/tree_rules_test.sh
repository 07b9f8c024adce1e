#!/usr/bin/env bash
# Each rule of tree_rules.sh notices its case, and lets the allowed ones pass.
set -euo pipefail
rules="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tree_rules.sh"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/src" "$tree/kernels/device" "$tree/kernels/dense"

try() { # EXPECTED-STATUS FILE TEXT
  local status=0
  printf '%s\n' "$3" >"$tree/$2"
  bash "$rules" "$tree" >"$tree/build.log" 2>&1 || status=$?
  rm -f "$tree/$2"
  if [[ $status != "$1" ]]; then
    echo "$2 with '$3': status $status instead of $1"
    cat "$tree/build.log"
    exit 1
  fi
}

try 0 src/a.cpp 'int launch; // all well'
try 1 kernels/dense/a.cu "kernel<""<<1, 2>>>();"
try 1 src/a.cpp 'void f() { as''m volatile("nop"); }'
try 1 kernels/dense/a.cuh 'as''m("nop");'
try 0 kernels/device/a.cuh 'as''m volatile("nop");'
try 1 kernels/dense/a.cuh '__sha''red__ float tile[32];'
try 0 kernels/device/a.cuh '__sha''red__ float tile[32];'
try 1 kernels/dense/a.cu 'namespace {'
try 0 kernels/dense/a.cu 'namespace dense {'
mkdir -p "$tree"/src/{base,graph,ops,cpu,cuda,io,model,train,cli} "$tree/include/cuvae"
try 0 src/train/a.cpp '#include "graph/op.h"'
try 0 src/cli/a.cpp '#include "cuvae/trainer.h"'
try 0 src/ops/a.cpp '#include "graph/op.h"'
try 0 src/cpu/a.cpp '#include "cuvae/device.h"'
try 0 src/graph/op.h '#include "ops/ops.def"'
try 0 src/graph/a.cpp '#include <gtest/gtest.h>'
try 0 kernels/dense/a.cu '#include "kernels/device/mma.cuh"'
try 1 src/graph/fuse.cpp '#include "ops/ops.def"'
try 1 src/graph/op.h '#include "ops/activation.h"'
try 1 src/graph/a.cpp '#include "cuvae/model.h"'
try 1 src/graph/a.cpp '  # include <cpu/gemm.h>'
try 1 src/ops/a.cpp '#include "cpu/gemm.h"'
try 1 src/cpu/a.cpp '#include "cuda/runtime.h"'
try 1 src/cuda/a.cpp '#include "cpu/team.h"'
try 1 src/model/a.cpp '#include "train/lockstep.h"'
try 1 src/train/a.cpp '#include "cli/options.h"'
try 1 src/io/a.cpp '#include "cuvae/trainer.h"'
try 1 src/base/a.cpp '#include "graph/op.h"'
try 1 src/base/a.cpp '#include "cuvae/unheard_of.h"'
try 0 include/cuvae/trainer.h '#include "cuvae/device.h"'
try 1 include/cuvae/graph.h '#include "graph/op.h"'
try 1 include/cuvae/graph.h '#include "cuvae/trainer.h"'
try 1 include/cuvae/unheard_of.h '#include "cuvae/graph.h"'
try 1 kernels/device/a.cuh '#include "cuvae/rng.h"'
try 1 kernels/dense/a.cu '#include "cpu/gemm.h"'
try 1 README.md "see /ho""me/someone/file"
try 1 src/a.cpp "open(\"/wo""rk/x\");"
try 0 README.md 'see docs/home/someone'
try 1 src/a.cpp '// TO''DO: later'
try 1 note.txt 'FIX''ME'
try 0 src/a.cpp 'int todos;'
echo "all rules notice their case"
