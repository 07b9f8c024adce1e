#!/usr/bin/env bash
# scripts_test.sh TREE BUILD: the scripts' own behaviour: usage errors, what they install, from anywhere.
# shellcheck disable=SC2016  # snippets for an inner shell
set -euo pipefail
tree=$1 build=$2
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"

expect() { # STATUS TEXT COMMAND...: one line of error with TEXT in it, where STATUS is not 0
  local want=$1 text=$2 status=0
  shift 2
  "$@" >"$place/out" 2>&1 </dev/null || status=$?
  if [[ $status != "$want" ]] || { [[ -n $text ]] && ! grep -qF -- "$text" "$place/out"; }; then
    echo "'$*': status $status instead of $want, or no '$text' in:"
    cat "$place/out"
    exit 1
  fi
  if [[ $want != 0 && $(wc -l <"$place/out") != 1 ]]; then
    echo "'$*': more than one line:"
    cat "$place/out"
    exit 1
  fi
}

for script in quickstart test lint; do
  expect 0 "scripts/$script" "$tree/scripts/$script" --help
  expect 2 "unknown" "$tree/scripts/$script" --no-such-flag
done
expect 2 "--epochs" "$tree/scripts/quickstart" --epochs 0
expect 2 "--epochs" "$tree/scripts/quickstart" --epochs many
expect 2 "needs a value" "$tree/scripts/quickstart" --epochs
mkdir mine && touch mine/file
expect 2 "holds no run of cuvae" "$tree/scripts/quickstart" --out mine
expect 2 "holds no run of cuvae" "$tree/scripts/quickstart" --out mine/file
expect 2 "unexpected argument" "$tree/scripts/test" quick more
# Refused before anything is installed or built; and no label that ctest knows is.
CUVAE_PRESET=none expect 2 "no tests have the label 'nosuchlabel': use quick, long or one of bench " \
  "$tree/scripts/test" nosuchlabel
known=$(bash -c "source '$tree/scripts/lib.sh'; test_labels")
ctest --test-dir "$build" --print-labels | sed -n 's/^  //p' >labels
grep -qx build labels
while read -r label; do
  if ! grep -qxF -- "$label" <<<"$known"; then
    echo "ctest has the label '$label', which scripts/test does not know"
    exit 1
  fi
done <labels

# Packages: only what is missing is installed, once; without rights, one line says what is missing.
mkdir fake
for tool in dpkg-query apt-get id; do
  printf '#!/bin/sh\n' >"fake/$tool"
  chmod +x "fake/$tool"
done
cat >>fake/dpkg-query <<'TEXT'
for last; do :; done
case $last in present*) printf installed ;; *) exit 1 ;; esac
TEXT
printf 'echo "$@" >>"%s/apt.log"\n' "$place" >>fake/apt-get
echo 'echo 0' >>fake/id
with_lib() { PATH="$place/fake:$PATH" bash -c "set -euo pipefail; source '$tree/scripts/lib.sh'; $1"; }

expect 0 "" with_lib 'install_packages present1 present2'
if [[ -e apt.log ]]; then
  echo "apt-get was called although nothing is missing"
  exit 1
fi
expect 0 "installing absent" with_lib 'install_packages present1 absent'
grep -q 'install.* absent$' apt.log
if grep -q present1 apt.log; then
  echo "a present package was installed again"
  exit 1
fi
rm apt.log
CUVAE_NO_INSTALL=1 expect 0 "" with_lib 'install_packages absent'
test ! -e apt.log
printf '#!/bin/sh\necho 1000\n' >fake/id
# Neither root nor sudo: a PATH that holds no sudo.
mkdir bare
for tool in bash dirname; do ln -s "$(command -v "$tool")" "bare/$tool"; done
no_rights() {
  PATH="$place/fake:$place/bare" bash -c \
    "set -euo pipefail; source '$tree/scripts/lib.sh'; install_packages absent1 present1 absent2"
}
expect 1 "apt-get install absent1 absent2" no_rights
# What is only data stops nothing.
no_data() {
  PATH="$place/fake:$place/bare" bash -c \
    "set -euo pipefail; source '$tree/scripts/lib.sh'; install_data absent1; echo on >&2"
}
expect 0 "going on without absent1" no_data

# A GPU and its driver without nvcc: the CPU build, and how to get CUDA.
expect 0 "install CUDA 13" with_lib \
  'have_gpu() { true; }; find_nvcc() { false; }; choose_preset; [[ $PRESET == cpu ]]'
expect 0 "building for the CPU" with_lib 'have_gpu() { false; }; choose_preset; [[ $PRESET == cpu ]]'
expect 0 "architecture, 90" with_lib \
  'have_gpu() { true; }; find_nvcc() { echo /usr/x/bin/nvcc; }; gpu_architecture() { echo 90; }
   choose_preset; [[ $PRESET == cuda ]]'
echo "the scripts behave"
