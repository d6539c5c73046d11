# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts of this folder: one line per step, a log for each, one message on failure.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export DEBIAN_FRONTEND=noninteractive
default_model=${LMD_HOME:-$HOME/.cache/lmd}/models/SmolLM2-135M-Instruct

say() { printf '== %s\n' "$*"; }

fail() {  # MESSAGE [EXIT STATUS]
  printf '\nFAILED: %s\n' "$1" >&2
  exit "${2:-1}"
}

# step NAME WHAT COMMAND...: says WHAT, runs COMMAND with its output in build/log/NAME.log. When it
# fails, shows the end of the log, names the step and returns 1.
step() {
  local name=$1 what=$2 log=$root/build/log/$1.log began=$SECONDS
  shift 2
  mkdir -p "$root/build/log"
  say "$what"
  if "$@" >"$log" 2>&1 </dev/null; then
    ((SECONDS - began < 5)) || say "  done in $((SECONDS - began)) s"
  else
    tail -n 40 "$log" >&2
    printf '\nFAILED: step "%s". The whole log is in %s\n' "$name" "$log" >&2
    return 1
  fi
}

# need_packages NAME...: installs those Debian or Ubuntu packages that are missing. Exit status 2,
# with the line to type, where that takes another user.
need_packages() {
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    fail "missing: ${missing[*]} (Debian's names; this system has no apt-get, install them its way)" 2
  local install=(apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}")
  if ((EUID != 0)); then
    fail "missing packages. Type this, then start again:
  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" 2
  fi
  # The list of packages may be missing or too old: then once more with a fresh one.
  if ! step install-packages "installing ${missing[*]}" "${install[@]}" 2>/dev/null; then
    step update-package-list "updating the package list" apt-get update -q || exit 1
    step install-packages "installing ${missing[*]}" "${install[@]}" || exit 1
  fi
}

# want_packages NAME...: the same for what is not needed, but used where it is there: installed where that
# takes no other user, and not missed where it cannot be.
want_packages() {
  local package
  ((EUID == 0)) && command -v apt-get >/dev/null || return 0
  for package in "$@"; do
    has_package "$package" ||
      step "install-$package" "installing $package" \
        apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "$package" 2>/dev/null || true
  done
}

# Asks for what is used rather than for the package, so that other ways to install it count too.
is_installed() {
  case $1 in
    g++ | cmake | python3) command -v "$1" >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
    nlohmann-json3-dev) [[ -e /usr/include/nlohmann/json.hpp ]] || has_package "$1" ;;
    libcli11-dev) [[ -e /usr/include/CLI/CLI.hpp ]] || has_package "$1" ;;
    libedit-dev) [[ -e /usr/include/editline/readline.h ]] || has_package "$1" ;;
    libboost*-dev) boost_is_new_enough || has_package "$1" ;;
    libssl-dev) [[ -e /usr/include/openssl/ssl.h ]] || has_package "$1" ;;
    doctest-dev) [[ -e /usr/include/doctest/doctest.h ]] || has_package "$1" ;;
    *) has_package "$1" ;;
  esac
}

has_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# Whether the Boost headers of this machine are those of 1.81 or newer.
boost_is_new_enough() {
  local version
  version=$(sed -n 's/^#define BOOST_VERSION \([0-9]*\).*/\1/p' /usr/include/boost/version.hpp 2>/dev/null)
  ((${version:-0} >= 108100))
}

need_build_packages() {
  # Debian 12 has two versions of Boost side by side; later releases' own is new enough.
  local boost=libboost-dev
  if ! boost_is_new_enough && grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
    boost=libboost1.81-dev
  fi
  # What obtains the model after minutes of building is asked for with the rest.
  local pip=()
  [[ -e $default_model/config.json ]] || pip=(python3-pip)
  need_packages g++ cmake ninja-build python3 nlohmann-json3-dev libcli11-dev libedit-dev doctest-dev \
    "$boost" libssl-dev libjs-marked node-dompurify libjs-katex fonts-katex node-prismjs "${pip[@]}"
}

# build PRESET TARGET: configures when there is need to, then builds.
build() {
  local preset=$1 target=$2 folder=$root/build/$1
  cd "$root" || exit 1
  if [[ ! -e $folder/build.ninja || CMakePresets.json -nt $folder/build.ninja ]]; then
    step "configure-$preset" "configuring preset $preset" cmake --preset "$preset" || return 1
  fi
  step "build-$preset" "building $target, preset $preset (minutes the first time)" \
    cmake --build "build/$preset" --target "$target"
}
