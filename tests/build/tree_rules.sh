#!/usr/bin/env bash
# tree_rules.sh TREE: refuses what may not stand in the tree. Prints each place; status 1 if any.
#  - launches outside the encoder, and inline assembly and raw shared memory outside kernels/device/
#    (and src/simt/, which stands in for the device);
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
host_code | check 'inline assembly outside kernels/device' \
  '(^|[^A-Za-z0-9_"])(asm|__asm|__asm__)[[:space:]]*(volatile|__volatile__|goto|inline)?[[:space:]]*[(]' ||
  found=1
host_code | check 'raw shared memory outside kernels/device' '(^|[^A-Za-z0-9_])__shared[_]_' || found=1
all_text | check 'a path of one machine' \
  '(^|[^A-Za-z0-9_./}-])/(work|tmp|home|root|var/tmp|mnt|Users)/[A-Za-z0-9_]' || found=1
all_text | check 'a note of unfinished work' \
  '(^|[^A-Za-z0-9_])(TO[D]O|FIX[M]E|XX[X])([^A-Za-z0-9_]|$)' || found=1
exit "$found"
