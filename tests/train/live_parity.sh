#!/usr/bin/env bash
# Parity with PyTorch, live: our export of 100 steps, checked by the script that made the golden
# file, and that file remade from it.
#   live_parity.sh CUVAE SOURCE_DIR
set -euo pipefail
cuvae=$1
source_dir=$2
python=$("$source_dir/scripts/peers-venv")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cuvae" compare --device cpu --data "$source_dir/data/mnist" --steps 100 --export "$work/export"
check() {
  "$python" "$source_dir/tests/golden/make_mnist_mlp.py" "$work/export" \
    --data "$source_dir/data/mnist" "$@"
}
check --check --double
check --check
# The committed file is what the script makes today, but for the version of PyTorch.
check --double --write "$work"
"$python" - "$source_dir/tests/golden/mnist_mlp.json" "$work/mnist_mlp.json" <<'PYTHON'
import json, sys
committed, remade = (json.load(open(path)) for path in sys.argv[1:])
for key in ("batches_sha256", "initial_sha256", "steps"):
    assert committed["inputs"][key] == remade["inputs"][key], f"inputs.{key} differ"
worst = max(abs(a - b) / abs(b)
            for a, b in zip(committed["losses"]["loss"], remade["losses"]["loss"]))
print(f"golden file against today's PyTorch: losses within {worst:.1e}")
assert worst <= 1e-4, "remake tests/golden/mnist_mlp.json"
PYTHON
