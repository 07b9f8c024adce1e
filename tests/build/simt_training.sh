#!/usr/bin/env bash
# simt_training.sh CUVAE_SIMT: `train` on a GPU as a user meets it, on the runner: Ctrl-C within a
# launch of the persistent path, memory that is enough for the training but not for its end, and
# flags without effect.
set -euo pipefail
cuvae=$1
work=$(mktemp -d)
command=()
trap 'rm -rf "$work"' EXIT
images() { # HIGH LOW (of COUNT) BYTES: images of 5 x 4
  printf '%b' "\0\0\010\003\0\0\0$1\0$2\0\0\0\005\0\0\0\004"
  head -c $((4096 + $3)) "$cuvae" | tail -c "$3"
}
mkdir "$work/many" "$work/few"
images 110 000 368640 >"$work/many/train-images-idx3-ubyte" # 18432 images of 5 x 4
images 0 020 320 >"$work/many/t10k-images-idx3-ubyte"
images 0 100 1280 >"$work/few/train-images-idx3-ubyte"
images 0 020 320 >"$work/few/t10k-images-idx3-ubyte"
layer() { echo "[{type=\"linear\",out=$1,activation=\"relu\"}]"; }
train() { # DATA RUN ARGUMENT...: what to run
  local data=$work/$1 out=$work/$2
  shift 2
  command=("$cuvae" train --device cuda --data "$data" --batch-size 12 --out "$out" \
    --set "model.encoder.layers=$(layer 20)" --set "model.decoder.layers=$(layer 18)" \
    --set model.latent.size=3 "$@")
}
steps_of() { # RUN
  "$cuvae" info "$work/$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["steps"])'
}

# An epoch is one launch of 1536 steps, seconds of the runner's time.
interrupt() { # RUN WITHIN... [-- ARGUMENT...]: status 130, and each of the runs within has begun
  local out=$1 runs=() process status=0 run steps
  shift
  while [[ $# -gt 0 && $1 != -- ]]; do runs+=("$1") && shift; done
  train many "$out" --exec persistent --epochs 1 "${@:2}"
  "${command[@]}" >/dev/null 2>"$work/$out.txt" &
  process=$!
  for _ in $(seq 600); do
    if grep -q "run folder" "$work/$out.txt"; then break; fi
    sleep 0.02
  done
  sleep 0.1
  kill -INT "$process"
  wait "$process" || status=$?
  if [[ $status != 130 ]]; then
    echo "status $status:" && cat "$work/$out.txt"
    exit 1
  fi
  for run in "${runs[@]}"; do
    steps=$(steps_of "$run")
    if ((steps < 1 || steps >= 1536)); then
      echo "$run: a launch of 1536 steps ended after $steps"
      exit 1
    fi
    echo "$run: $steps of 1536 steps"
  done
}
interrupt one one
interrupt two two/seed-0 two/seed-1 -- --replicas 2

# Whatever the memory: the training is whole, or one line refuses it before its first step.
fits() { # BYTES ARGUMENT...
  local status=0
  rm -rf "$work/fits"
  train few fits --exec eager --epochs 1 "${@:2}"
  CUVAE_SIMT_MEMORY=$1 "${command[@]}" >/dev/null 2>"$work/fits.txt" || status=$?
  if [[ $status == 0 ]]; then return 0; fi
  if [[ $status != 4 || -e $work/fits ]] || grep -q "epoch 1/1" "$work/fits.txt" ||
    [[ $(grep -c "^cuvae: error: " "$work/fits.txt") != 1 ]]; then
    echo "with $1 bytes: status $status" >&2
    cat "$work/fits.txt" >&2
    exit 1
  fi
  return 1
}
# The least memory that is enough, between two sizes.
least() { # LOW HIGH STEP ARGUMENT...
  local low=$1 high=$2 step=$3 middle
  shift 3
  while ((high - low > step)); do
    middle=$(((low + high) / 2))
    if fits "$middle" "$@"; then high=$middle; else low=$middle; fi
  done
  echo "$high"
}
for more in "" "--replicas 3"; do
  read -ra arguments <<<"$more"
  enough=$(least 20000 2000000 256 "${arguments[@]}")
  beside=0
  for less in $(seq 0 2048 40960); do
    if fits $((enough - less)) "${arguments[@]}"; then continue; fi
    if grep -q "the end of" "$work/fits.txt"; then beside=$((beside + 1)); fi
  done
  echo "${more:-one run}: $enough bytes are enough, $beside sizes are too little for the end alone"
  if ((beside == 0)); then exit 1; fi
done

# Flags that do nothing say so.
train few tuned --autotune --epochs 1
"${command[@]}" 2>"$work/tuned.txt" >/dev/null
grep -q "note: no product of this model goes to cuBLASLt, --autotune is without effect" \
  "$work/tuned.txt"
echo "training is interrupted, refused and told of as documented"
