#!/usr/bin/env bash
# no_gpu.sh PROGRAM: where CUDA shows no GPU, whether for want of a driver or of a device, the
# program starts, trains on the CPU, and says in one line of status 4 why `--device cuda` cannot be.
set -euo pipefail
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES=-1

# IDX: a magic number, the dimensions, and the bytes.
bytes() { # NUMBER...: as bytes
  local number
  for number in "$@"; do printf '%b' "$(printf '\\0%03o' "$number")"; done
}
split() { # NAME ROWS
  { bytes 0 0 8 3 0 0 0 "$2" 0 0 0 8 0 0 0 8; head -c $(($2 * 64)) /dev/zero | tr '\0' S; } \
    >"$folder/$1-images-idx3-ubyte"
  { bytes 0 0 8 1 0 0 0 "$2"; head -c "$2" /dev/zero; } >"$folder/$1-labels-idx1-ubyte"
}
split train 32
split t10k 8

arguments=(train --data "$folder" --epochs 1 --batch-size 8 --set model.latent.size=2)
"$program" "${arguments[@]}" --out "$folder/run" --json >"$folder/report.json" \
  2>"$folder/log" || { cat "$folder/log"; exit 1; }
grep -q '"device": "cpu"' "$folder/report.json" || { cat "$folder/report.json"; exit 1; }

status=0
"$program" "${arguments[@]}" --device cuda --out "$folder/other" >"$folder/out" 2>"$folder/error" ||
  status=$?
# shellcheck disable=SC2016
expected='^cuvae: error: no device `cuda`: '
lines=$(wc -l <"$folder/error")
if [[ $status != 4 || $lines != 1 ]] || ! grep -q "$expected" "$folder/error"; then
  echo "--device cuda: status $status, $lines lines:"
  cat "$folder/error"
  exit 1
fi
cat "$folder/error"
