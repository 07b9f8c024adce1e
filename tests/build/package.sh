#!/usr/bin/env bash
# package.sh CMAKE BUILD SOURCE COMPILER sanitize=LIST PROGRAM TEXT [ARGUMENT...]: installs the library
# into a fresh folder, builds SOURCE against it with find_package(cuvae), and runs PROGRAM, which
# must print TEXT.
set -euo pipefail
cmake=$1 build=$2 source=$3 compiler=$4 sanitize=${5#sanitize=} program=$6 text=$7
shift 7
place="$build/tests/build/package-$program"
rm -rf "$place"
mkdir -p "$place"

"$cmake" --install "$build" --component development --prefix "$place/prefix" >/dev/null
flags=""
if [[ -n $sanitize ]]; then flags="-fsanitize=$sanitize"; fi
"$cmake" -S "$source" -B "$place/build" -G Ninja -D CMAKE_BUILD_TYPE=Release \
  -D CMAKE_CXX_COMPILER="$compiler" -D CMAKE_CXX_FLAGS="$flags" \
  -D CMAKE_PREFIX_PATH="$place/prefix"
"$cmake" --build "$place/build"
cd "$place"
"$place/build/$program" "$@" | tee "$place/output.txt"
grep -qF -- "$text" "$place/output.txt"
