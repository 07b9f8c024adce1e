#!/usr/bin/env bash
# binaries.sh [--release] PROGRAM...: the programs need only libc, libm, libstdc++ and libgcc_s, in
# versions that Ubuntu 22.04 has (GLIBC 2.35, GLIBCXX 3.4.30). Without --release the versions are
# not checked on a system newer than Debian 12, whose own libraries ask for more; with --release the
# programs must also be stripped.
set -euo pipefail
release=no
if [[ ${1:-} == --release ]]; then
  release=yes
  shift
fi

newest() { # the highest of the versions on standard input; "0" where there is none
  { echo 0; cat; } | sort -V | tail -n 1
}
at_most() { # VERSION LIMIT
  [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1) == "$2" ]]
}

host_glibc=$(getconf GNU_LIBC_VERSION | grep -oE '[0-9.]+$')
bad=0
for program in "$@"; do
  name=$(basename "$program")
  needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  if [[ -z $needed ]]; then
    echo "$name: no NEEDED entries could be read"
    bad=1
  fi
  while read -r library; do
    case $library in
      libc.so.6 | libm.so.6 | libstdc++.so.6 | libgcc_s.so.1 | ld-linux-*.so.* | \
        libpthread.so.0 | libdl.so.2 | librt.so.1) ;;
      *)
        echo "$name needs $library"
        case $library in
          libcuda.so* | libcublas*) echo "  never linked: it is not there where there is no GPU" ;;
        esac
        bad=1
        ;;
    esac
  done <<<"$needed"

  symbols=$(objdump -T "$program" | grep -F '*UND*')
  for rule in GLIBC:2.35 GLIBCXX:3.4.30 CXXABI:1.3.13; do
    set_name=${rule%%:*} limit=${rule##*:}
    asked=$(grep -oE "\(?${set_name}_[0-9.]+" <<<"$symbols" | grep -oE '[0-9.]+$' | newest)
    echo "$name asks for $set_name $asked (at most $limit)"
    if ! at_most "$asked" "$limit"; then
      if [[ $release == yes ]] || at_most "$host_glibc" 2.36; then
        grep -F "${set_name}_${asked}" <<<"$symbols" | head -n 5
        bad=1
      else
        echo "  not checked: glibc $host_glibc here; releases are made on Debian 12"
      fi
    fi
  done
  if [[ $release == yes ]] && readelf -SW "$program" | grep -qF ' .symtab '; then
    echo "$name is not stripped"
    bad=1
  fi
done
exit "$bad"
