# shellcheck shell=bash disable=SC2034  # its variables are for those who source it
# Shared by quickstart, test and lint: messages, packages, the choice of what to build.
# Source it; it defines functions and CUVAE_ROOT only.

CUVAE_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '==> %s\n' "$*" >&2; }
die() { # MESSAGE [STATUS]
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

BUILD_PACKAGES=(
  g++ cmake ninja-build ccache git
  libopenblas-pthread-dev zlib1g-dev libpng-dev nettle-dev
  libfmt-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
)
TEST_PACKAGES=(libgtest-dev binutils)
# Data that tests use where they are there; tests say so where they are not.
DATA_PACKAGES=(dataset-fashion-mnist)
LINT_PACKAGES=(clang-format-14 clang-tidy-14 shellcheck)

# The command that gives a program root's rights: empty for root.
root_command() {
  if [[ $(id -u) -eq 0 ]]; then
    echo ""
  elif command -v sudo >/dev/null; then
    echo sudo
  else
    echo none
  fi
}

# install_packages PACKAGE...: installs those that are missing; does nothing, at once, where none
# is. CUVAE_NO_INSTALL=1 leaves the system alone.
install_packages() {
  local missing=() package
  if [[ ${CUVAE_NO_INSTALL:-0} == 1 ]]; then return; fi
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not Debian or Ubuntu: the packages of README.md, 'Dependencies', must be there already"
    return
  fi
  for package in "$@"; do
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      missing+=("$package")
    fi
  done
  if ((${#missing[@]} == 0)); then return; fi

  local as_root
  as_root=$(root_command)
  if [[ $as_root == none ]]; then
    die "missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  # shellcheck disable=SC2086  # $as_root is one word or none
  {
    $as_root apt-get -qq update </dev/null ||
      die "apt-get update failed: check the network and /etc/apt, then run this again"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      "${missing[@]}" </dev/null >/dev/null ||
      die "apt-get could not install ${missing[*]}: cuvae needs Debian 12, Ubuntu 24.04 or newer"
  }
}

# install_data PACKAGE...: the same, but what cannot be had stops nothing.
install_data() {
  (install_packages "$@") || say "going on without $*: tests that need it are skipped"
}

# The build needs CMake 3.25; say so before CMake does it less clearly.
check_cmake() {
  local version
  command -v cmake >/dev/null || die "cmake is missing: install CMake 3.25 or newer"
  command -v ninja >/dev/null || die "ninja is missing: install ninja-build"
  version=$(cmake --version | sed -n 's/^cmake version //p')
  if [[ $(printf '3.25\n%s\n' "$version" | sort -V | head -n 1) != 3.25 ]]; then
    die "CMake $version is too old: 3.25 or newer is needed (Debian 12 and Ubuntu 24.04 have it)"
  fi
}

# The labels that tests have, one a line, as the CMake files give them: known before anything is
# built, while ctest knows them afterwards.
test_labels() {
  grep -rhoE --include=CMakeLists.txt '\<LABELS? +"?[a-z][a-z; ]*' "$CUVAE_ROOT"/{tests,bench} |
    sed -E 's/LABELS? +"?//' | tr -s '; ' '\n' | sed '/^$/d' | sort -u
}

# Is an NVIDIA GPU with its driver here?
have_gpu() {
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
    return 0
  fi
  [[ -e /dev/nvidia0 ]]
}

find_nvcc() { # prints the path of nvcc; status 1 where there is none
  if command -v nvcc; then return 0; fi
  local candidate
  for candidate in "${CUDA_HOME:-}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
    if [[ -x $candidate ]]; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

gpu_architecture() { # "90" for an H200; "native" where nvidia-smi does not say
  local capability=""
  if command -v nvidia-smi >/dev/null; then
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
      head -n 1 | tr -cd '0-9' || true)
  fi
  echo "${capability:-native}"
}

cuda_how="install CUDA 13 from https://developer.nvidia.com/cuda-downloads, or run scripts/quickstart --with-cuda"

# NVIDIA's own package source, by its own keyring package; then the compiler and the runtime only.
install_cuda() {
  local id version folder as_root keyring
  if find_nvcc >/dev/null; then return; fi
  # shellcheck disable=SC1091
  id=$(. /etc/os-release && echo "$ID")
  # shellcheck disable=SC1091
  version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  case $id in
    debian) folder="debian${version%%.*}" ;;
    ubuntu) folder="ubuntu${version//./}" ;;
    *) die "--with-cuda knows Debian and Ubuntu only: $cuda_how" ;;
  esac
  install_packages ca-certificates curl
  as_root=$(root_command)
  if [[ $as_root == none ]]; then die "--with-cuda needs root or sudo: $cuda_how"; fi
  say "installing CUDA 13 from NVIDIA's package source"
  keyring=$(mktemp --suffix=.deb)
  if ! curl -fsSL --retry 2 -o "$keyring" \
    "https://developer.download.nvidia.com/compute/cuda/repos/$folder/x86_64/cuda-keyring_1.1-1_all.deb"; then
    rm -f "$keyring"
    die "NVIDIA's package source for $folder cannot be reached: $cuda_how"
  fi
  chmod 644 "$keyring"
  # shellcheck disable=SC2086
  $as_root dpkg -i "$keyring" >/dev/null || die "the package $keyring could not be installed"
  rm -f "$keyring"
  install_packages cuda-nvcc-13-0 cuda-cudart-dev-13-0 libcurand-dev-13-0
}

# choose_preset [tests]: sets PRESET and CONFIGURE_ARGUMENTS for this machine, and says why in one
# line. Tests compile the kernels wherever there is nvcc.
choose_preset() {
  local nvcc
  PRESET=cpu
  CONFIGURE_ARGUMENTS=()
  if ! have_gpu && [[ ${1:-} == tests ]] && nvcc=$(find_nvcc); then
    PRESET=cuda
    CONFIGURE_ARGUMENTS=(
      -D "CUDAToolkit_ROOT=$(dirname "$(dirname "$nvcc")")" -D CUVAE_CUDA_ARCHITECTURES=90)
    say "no NVIDIA GPU or driver found: kernels are compiled for sm_90, and run on the SIMT runner"
  elif ! have_gpu; then
    say "no NVIDIA GPU or driver found: building for the CPU"
  elif nvcc=$(find_nvcc); then
    PRESET=cuda
    CONFIGURE_ARGUMENTS=(
      -D "CUDAToolkit_ROOT=$(dirname "$(dirname "$nvcc")")"
      -D "CUVAE_CUDA_ARCHITECTURES=$(gpu_architecture)")
    say "NVIDIA GPU found: building for its architecture, $(gpu_architecture)"
  else
    say "there is a GPU and its driver, but no nvcc; building for the CPU. For the GPU: $cuda_how"
  fi
}

# build PRESET "TARGET..." [CONFIGURE-ARGUMENT...]: configures and builds. Quiet while all is well.
build() {
  local preset=$1 log
  local -a targets
  read -r -a targets <<<"$2"
  shift 2
  check_cmake
  cd "$CUVAE_ROOT" || die "cannot enter $CUVAE_ROOT"
  mkdir -p "build/$preset"
  log="build/$preset/configure.log"
  if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    die "cmake could not configure build/$preset (the lines above say why)"
  fi
  cmake --build "build/$preset" --parallel "$(nproc)" --target "${targets[@]}" >&2 ||
    die "the build of ${targets[*]} in build/$preset failed (the lines above say why)"
}
