#!/usr/bin/env bash
# Prints the path of a cargo-deny that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_CARGO_DENY, `cargo-deny` on PATH, the cache, and at last one that is built from its own sources, which
# takes about a minute, once. Nothing is installed, and no root is needed.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

version=0.20.2
cached=$(cached_at cargo-deny "$version")

runs() { "$1" --version >/dev/null 2>&1; }
given "${BELLWETHER_CARGO_DENY:-}" "$(command -v cargo-deny || true)" "$cached"

# Unoptimised: it is built for longer than it works.
build() {
  CARGO_TARGET_DIR=$1/target cargo install --quiet --debug --locked --no-track --root "$1/root" "cargo-deny@$version"
  mv "$1/root/bin/cargo-deny" "$1/"
}
built "$cached" build
