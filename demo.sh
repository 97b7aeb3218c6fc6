#!/usr/bin/env bash
# Shows Bellwether at work: a real MongoDB, stand-ins for the application, and the sidecar watching them.
#
#   ./demo.sh          a live view, until Ctrl-C
#   ./demo.sh --once   plays it through, says what it verified, exits with 0 or 1
#
# With MONGODB_URI set, that MongoDB is used (a database of its own in it, removed at the end) and none is started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v cargo >/dev/null; then
  echo "demo.sh: cargo is missing; it builds the demo. Install Rust with rustup." >&2
  exit 69 # EX_UNAVAILABLE
fi
if [[ -z ${MONGODB_URI:-} ]]; then
  BELLWETHER_MONGOD=$(scripts/mongod.sh)
  export BELLWETHER_MONGOD
fi
cargo build --release --locked --bin bellwether --example demo
exec "${CARGO_TARGET_DIR:-target}/release/examples/demo" "$@"
