#!/usr/bin/env bash
# tree_rules.sh TREE: refuses what may not stand in the tree. Prints each place; status 1 if any.
#  - launches outside the encoder, and inline assembly and raw shared memory outside kernels/device/
#    (and src/simt/, which stands in for the device; bench/units/ times instructions that kernels do
#    not use yet, and may have assembly);
#  - unnamed namespaces in kernels/: a kernel in one counts as a test's own, and as not our concern;
#  - includes against the arrows between the folders;
#  - paths of one machine;
#  - notes of unfinished work.
# The patterns are written so that they do not match themselves.
set -euo pipefail
cd "$1"

found=0
refuse() { # REASON PATTERN, file names on standard input, each ending in a zero byte
  local hits
  hits=$(xargs -0 --no-run-if-empty grep -nHIE -e "$2" -- || true)
  if [[ -n $hits ]]; then
    printf '%s:\n%s\n' "$1" "$hits"
    found=1
  fi
}

except() { # PATTERN: the names on standard input but those that match
  grep -zvE "$1" || true
}

files() { # every file that belongs to the tree, or those whose names match the patterns
  if [[ -e .git ]] && command -v git >/dev/null; then
    git -c "safe.directory=$PWD" ls-files -z --cached --others --exclude-standard -- "$@" |
      while IFS= read -r -d '' file; do
        if [[ -f $file ]]; then printf '%s\0' "$file"; fi
      done
  else
    local names=() pattern
    for pattern in "$@"; do names+=(-o -name "$pattern"); done
    if ((${#names[@]} == 0)); then names=(-o -name '*'); fi
    find . \( -path ./build -o -path ./runs -o -path ./shared -o -path ./.git -o -path ./.cache \) \
      -prune -o -type f \( "${names[@]:1}" \) -printf '%P\0'
  fi
}
# check REASON PATTERN, file names on standard input: `refuse` at the end of a pipe.
check() {
  refuse "$@"
  return "$found"
}
code() { files '*.h' '*.cpp' '*.cu' '*.cuh' '*.def' '*.in' | except '^shared/'; }
host_code() { code | except '^(kernels/device|src/simt)/'; }
all_text() { files | except '^(shared|data)/'; }

code | check 'a launch outside the encoder' '<<[<]' || found=1
host_code | except '^bench/units/' | check 'inline assembly outside kernels/device' \
  '(^|[^A-Za-z0-9_"])(asm|__asm|__asm__)[[:space:]]*(volatile|__volatile__|goto|inline)?[[:space:]]*[(]' ||
  found=1
host_code | { grep -z '^kernels/' || true; } |
  check 'an unnamed namespace in kernels/' '^namespace[[:space:]]*[{]' || found=1
host_code | check 'raw shared memory outside kernels/device' '(^|[^A-Za-z0-9_])__shared[_]_' || found=1
# The areas that each folder may include: its own, and where the arrows between them lead. A public
# header belongs to the area that it speaks of and includes public ones only; `api` is the interface of devices and programs, which
# backends implement and others use.
declare -A arrows=(
  [src/base]='base'
  [src/likelihoods]='likelihoods base'
  [src/graph]='graph base'
  [src/api]='api graph base'
  [src/ops]='ops graph likelihoods base'
  [src/cpu]='cpu ops graph likelihoods api base'
  [src/cuda]='cuda ops graph api kernels base'
  [src/simt]='simt cuda kernels kernels/device base'
  [src/device]='device cpu cuda simt api base'
  [src/io]='io base'
  [src/layers]='layers graph base'
  [src/config]='config data layers likelihoods base'
  [src/data]='data io base'
  [src/model]='model config layers likelihoods graph io api base'
  [src/evaluation]='evaluation layers graph data io api base'
  [src/train]='train evaluation model graph ops likelihoods config data io device api base'
  [src/bench]='bench train model config data io cpu graph device api base'
  [src/cli]='cli bench train evaluation model graph config data io device api base'
  [kernels/device]='kernels/device'
  [kernels]='kernels kernels/device cuda ops likelihoods base'
)
declare -A headers=(
  [error]=base [rng]=base [tensor]=base [tuning]=base [version]=base [graph]=graph [device]=api [model]=model
  [dataset]=data [layer]=layers [config]=config [image]=io [npy]=io [safetensors]=io
  [trainer]=train [run]=train [compare]=train [schedule]=train [sampling]=train [fitted_prior]=train [bench]=bench
  [evaluation]=evaluation [probe]=evaluation [sample_quality]=evaluation [classifier]=evaluation
)
# The one exception: the enumerators of the graph's operators are the rows of the operators' list.
exception='^src/graph/op\.(h|cpp) ops/ops\.def$'

folder_of() { # FILE: the row of `arrows` that it belongs to
  local name
  case $1 in
    kernels/device/*) echo kernels/device ;;
    kernels/*) echo kernels ;;
    include/*)
      name=${1##*/}
      echo "src/${headers[${name%.h}]:-$name}"
      ;;
    src/*/*)
      name=${1#src/}
      echo "src/${name%%/*}"
      ;;
  esac
}
area_of() { # INCLUDED: the area that it belongs to
  local name
  case $1 in
    cuvae/*)
      name=${1#cuvae/}
      echo "${headers[${name%.h}]:-$1}"
      ;;
    kernels/device/*) echo kernels/device ;;
    */*) echo "${1%%/*}" ;;
  esac
}
wrong_arrows() { # file names on standard input: "FILE includes HEADER" for each that may not
  local file included folder area
  xargs -0 --no-run-if-empty grep -HoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+[">]' -- |
    sed -E 's/^([^:]+):.*["<]([^">]+)[">]$/\1 \2/' |
    while read -r file included; do
      [[ $included == */* && "$file $included" =~ ^(src|include|kernels)/ ]] || continue
      area=$(area_of "$included")
      # Headers of libraries have folders too; ours are named by a folder of src/ or kernels/.
      [[ $included == cuvae/* || $area == kernels/device || -d src/$area || -d $area ]] || continue
      folder=$(folder_of "$file")
      [[ -n $folder ]] || continue
      if [[ " ${arrows[$folder]:-} " == *" $area "* ]]; then
        [[ $file == include/* && $included != cuvae/* ]] || continue
      fi
      [[ "$file $included" =~ $exception ]] && continue
      echo "$file includes $included"
    done
}

bad=$(code | wrong_arrows || true)
if [[ -n $bad ]]; then
  printf 'an include against the arrows:\n%s\n' "$bad"
  found=1
fi
all_text | check 'a path of one machine' \
  '(^|[^A-Za-z0-9_./}-])/(work|tmp|home|root|var/tmp|mnt|Users)/[A-Za-z0-9_]' || found=1
all_text | check 'a note of unfinished work' \
  '(^|[^A-Za-z0-9_])(TO[D]O|FIX[M]E|XX[X])([^A-Za-z0-9_]|$)' || found=1
exit "$found"
