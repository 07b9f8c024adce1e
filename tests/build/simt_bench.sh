#!/usr/bin/env bash
# simt_bench.sh CUVAE_SIMT: the suites of `cuvae bench` as a GPU has them, with its own clock and
# roof. On the runner they are slow and the times mean nothing.
set -euo pipefail
cuvae=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layer="[{type=\"linear\",out=16,activation=\"relu\"}]"
bench() { # FILE ARGUMENT...
  local out=$1
  shift
  "$cuvae" bench --device cuda --data "$work" --json --set "model.encoder.layers=$layer" \
    --set "model.decoder.layers=$layer" --set model.latent.size=4 "$@" >"$work/$out"
}
few=(--repeats 1 --steps 2 --quiet)
# 40 images of 8 x 8.
{
  printf '\0\0\010\003\0\0\0\050\0\0\0\010\0\0\0\010'
  head -c 2560 "$cuvae" | tail -c 2560
} >"$work/train-images-idx3-ubyte"

bench one.json --precision tf32 --batch-size 8 "${few[@]}"
bench step.json --suite step --batches 8,16,64 --precision bf16 "${few[@]}"
bench wide.json --suite wide --batches 8 --widths 16 --precisions fp32,tf32 "${few[@]}"
bench kernels.json --suite kernels --batch-size 8 "${few[@]}"
bench epochs.json --suite epochs --epochs 2 --batch-size 8 --quiet
bench decode.json --suite decode --batches 1,8 --repeats 1 --exec persistent --precision bf16
# The plan as a GPU has it: large products by a library, told in words.
"$cuvae" info --preset mnist-mlp --device cuda --precision tf32 --batch-size 2048 \
  --set "model.encoder.layers=[{out=2048}]" 2>/dev/null >"$work/info.txt"
grep -qF "cuBLASLt: 2; the others by cuvae's kernels" "$work/info.txt"
grep -qF "  encoder.0: [2048, 784] [2048, 784]^T = [2048, 2048], plus bias; in tf32, from f32 to f32" \
  "$work/info.txt"
# Where the persistent path does not fit, one line says so, and the figures are those of what ran.
for suite in step replicas; do
  batches=(--batch-size 8 --replicas 2)
  [[ $suite == replicas ]] || batches=(--batches "8,16")
  CUVAE_SIMT_CHIP=sm_80 bench fallback-$suite.json --suite $suite "${batches[@]}" \
    --exec persistent --repeats 1 --steps 2 2>"$work/said"
  [[ $(grep -c "the persistent path does not fit" "$work/said") == 1 ]] ||
    { cat "$work/said"; exit 1; }
done
status=0
bench none.json --suite kernels --exec persistent 2>"$work/said" || status=$?
[[ $status == 2 ]] && grep -q "no single nodes to measure (--exec)" "$work/said"
python3 - "$work" <<'PYTHON'
import json, pathlib, sys
load = lambda name: json.loads((pathlib.Path(sys.argv[1]) / name).read_text())
one = load("one.json")
assert one["device"] == "cuda:0" and one["precision"] == "tf32" and one["exec"] == "graph", one
for key in ("step_ms", "device_ms", "ceiling_gflops", "share_of_ceiling", "roof_ms",
            "bandwidth_gbytes_per_second"):
    assert one[key] > 0, (key, one)
assert one["device_ms"] <= 1.5 * one["step_ms"], one
rows = load("step.json")["results"]
assert [row["batch"] for row in rows] == [8, 16, 64], rows
assert all(row["precision"] == "bf16" for row in rows), rows
assert rows[1]["device_ms"] > 0 and "40 images" in rows[2]["skipped"], rows
rows = load("wide.json")["results"]
assert [row["precision"] for row in rows] == ["fp32", "tf32"], rows
assert all(row["model"] == "64-16-16-1" and row["step_ms"] > 0 for row in rows), rows
kernels = load("kernels.json")
nodes = kernels["results"]
assert kernels["ceiling_gflops"] > 0 and kernels["bandwidth_gbytes_per_second"] > 0, kernels
assert abs(sum(node["share_of_step"] for node in nodes) - 1) < 1e-6, nodes
assert {"encoder.0.relu", "adam.decoder.out.weight"} <= {node["node"] for node in nodes}, nodes
run = load("epochs.json")["results"][0]
assert run["steps"] == 10 and run["context_seconds"] > 0 and run["capture_seconds"] > 0, run
assert 0 < run["device_seconds"] <= 1.5 * run["seconds"], run
for suite in ("step", "replicas"):
    rows = load(f"fallback-{suite}.json")["results"]
    assert [row["exec"] for row in rows] == ["graph", "graph"], rows
rows = load("decode.json")["results"]
assert all(row["exec"] == "graph" for row in rows) and kernels["exec"] == "graph", rows
assert [(row["what"], row["batch"]) for row in rows] == [
    ("decode", 1), ("decode", 8), ("encode", 1), ("encode", 8)], rows
assert all(row["run_us"] > 0 and row["gbytes_per_second"] > 0 for row in rows), rows
print("the suites run as on a GPU")
PYTHON
