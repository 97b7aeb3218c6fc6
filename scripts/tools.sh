#!/usr/bin/env bash
# Sees to it that everything the tests call is there: installs what is missing where it may (root on a Debian system),
# and otherwise names everything that is missing at once, with the way to get it.
set -euo pipefail

missing=()

have() { command -v "$1" >/dev/null; }

# need COMMAND PACKAGE REASON
need() {
  have "$1" && return
  if [[ $EUID -eq 0 ]] && have apt-get; then
    printf 'tools.sh: installing %s, as %s is missing\n' "$2" "$1" >&2
    if install "$2" && have "$1"; then
      return
    fi
  fi
  missing+=("$1: $3. Install it (Debian, Ubuntu: apt-get install $2).")
}

# Package lists are often empty in containers, so they are fetched before the first install. No recommended packages:
# nothing but the named tool is wanted.
install() {
  export DEBIAN_FRONTEND=noninteractive
  if [[ -z ${lists_updated:-} ]]; then
    apt-get update -qq >&2 || return 1
    lists_updated=yes
  fi
  apt-get install -y -qq --no-install-recommends "$1" >&2
}

if ! have cargo; then
  missing+=("cargo: it builds the project. Install Rust with rustup; rust-toolchain.toml names the version.")
elif ! cargo --version >/dev/null; then
  # rustup fetches the version of rust-toolchain.toml at this call, and fails at it without a network.
  missing+=("the Rust version of rust-toolchain.toml: run 'rustup toolchain install' in this folder.")
fi
for component in fmt clippy; do
  if have cargo && ! cargo "$component" --version >/dev/null 2>&1; then
    missing+=("cargo $component: the checks call it. Install it (rustup component add rustfmt clippy).")
  fi
done
need cc build-essential "a C compiler builds the TLS library aws-lc-sys"
need promtool prometheus "it checks the alert rules and the exposition, and a real Prometheus evaluates them"
need amtool prometheus-alertmanager "it checks the routes of alerts, and a real Alertmanager sends them"
need curl curl "it scrapes the started sidecar"
need python3 python3 "it fetches and unpacks mongod"
need faketime faketime "the wall clock jumps in a test"
need ip iproute2 "a test has a network of its own"
need nft nftables "packets are dropped and rejected in that network"
need etcd etcd-server "a real API server of Kubernetes keeps its objects there"
need redis-server redis-server "the checks of Redis are tested against a real one"
# Debian keeps the programs of each version beside PATH; BELLWETHER_POSTGRES names their folder elsewhere.
if [[ -z ${BELLWETHER_POSTGRES:-} ]]; then
  for folder in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$folder"
  done
  need initdb postgresql "the checks of Postgres are tested against a real one"
fi

if ((${#missing[@]})); then
  printf 'tools.sh: %s\n' "${missing[@]}" >&2
  exit 69 # EX_UNAVAILABLE
fi
