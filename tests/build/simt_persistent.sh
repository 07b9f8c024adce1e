#!/usr/bin/env bash
# simt_persistent.sh CUVAE_SIMT: training by the persistent path as a user runs it, on the runner: it
# repeats and resumes bit by bit, is close to the graph path, passes `compare`, and where it does
# not fit says why and trains all the same.
set -euo pipefail
cuvae=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# 64 images of 5 x 4, and 16 for the test.
images() { # COUNT (octal) BYTES FILE
  printf '\0\0\010\003\0\0\0\'"$1"'\0\0\0\005\0\0\0\004'
  head -c $((4096 + $2)) "$cuvae" | tail -c "$2"
}
mkdir "$work/data"
images 100 1280 >"$work/data/train-images-idx3-ubyte"
images 020 320 >"$work/data/t10k-images-idx3-ubyte"
layer() { echo "[{type=\"linear\",out=$1,activation=\"relu\"}]"; }
train() { # RUN ARGUMENT...
  local out=$work/$1
  shift
  "$cuvae" train --device cuda --data "$work/data" --batch-size 12 --out "$out" \
    --set "model.encoder.layers=$(layer 20)" --set "model.decoder.layers=$(layer 18)" \
    --set model.latent.size=3 "$@" 2>&1
}
same() { cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors"; }

train one --exec persistent --epochs 3 >"$work/one.txt"
train two --exec persistent --epochs 3 >/dev/null
same one two
train three --exec persistent --epochs 1 >/dev/null
"$cuvae" train --resume --out "$work/three" --epochs 3 >/dev/null 2>&1
same one three
train graph --exec graph --epochs 3 >/dev/null
! same one graph >/dev/null 2>&1 || { echo "the graph path ran under another name"; exit 1; }
python3 - "$work" <<'PYTHON'
import json, pathlib, sys
def last(run):
    lines = (pathlib.Path(sys.argv[1]) / run / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["neg_elbo"]
one, graph = last("one"), last("graph")
assert abs(one - graph) < 1e-4 * graph, (one, graph)
PYTHON
"$cuvae" compare --device cuda --data "$work/data" --batch-size 12 --steps 2 --exec persistent \
  --set "model.encoder.layers=$(layer 20)" --set "model.decoder.layers=$(layer 18)" \
  --set model.latent.size=3 --json >"$work/compare.json"
python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["passed"] and r["exec"] == "persistent", r' \
  <"$work/compare.json"
CUVAE_SIMT_CHIP=sm_80 "$cuvae" compare --device cuda --data "$work/data" --batch-size 12 --steps 1 \
  --exec persistent --set "model.encoder.layers=$(layer 20)" \
  --set "model.decoder.layers=$(layer 18)" --set model.latent.size=3 >"$work/compare.txt" 2>&1
grep -q "the persistent path does not fit" "$work/compare.txt"
CUVAE_SIMT_CHIP=sm_80 train old --exec persistent --epochs 1 >"$work/old.txt"
grep -q "the persistent path does not fit (compute capability 8.0, it needs 9.0): the graph path runs instead" \
  "$work/old.txt"
echo "the persistent path trains"
