#!/usr/bin/env bash
# bench_units.sh PROGRAM: `bench --suite units` with a made-up cuvae-units beside the program: figures
# as they come, one object, and the file of --out, which keeps what there is where the rest fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$1" "$folder/cuvae"
units() { printf '#!/bin/sh\n%s\n' "$1" >"$folder/cuvae-units" && chmod +x "$folder/cuvae-units"; }
figure='{"row": "hop", "case": "a", "value": 1.5, "unit": "us"}'
cd "$folder"

units "echo '$figure'; echo '$figure'"
./cuvae bench --suite units --out units.json >lines
[[ $(grep -cFx "$figure" lines) == 2 ]]
./cuvae bench --suite units --json >object.json
units "echo '$figure'; echo 'cuvae-units: error: the GPU is gone' >&2; exit 1"
status=0
./cuvae bench --suite units --out half.json >/dev/null 2>error || status=$?
[[ $status == 1 ]] && grep -q "the GPU is gone" error
python3 - <<'PYTHON'
import json
load = lambda name: json.load(open(name))
whole, told, half = load("units.json"), load("object.json"), load("half.json")
assert whole == told and whole["schema"] == 1 and whole["suite"] == "units", (whole, told)
assert whole["complete"] and [f["value"] for f in whole["results"]] == [1.5, 1.5], whole
assert not half["complete"] and len(half["results"]) == 1, half
PYTHON
echo "unit costs are kept"
