#!/usr/bin/env bash
# Prints figures of the release build: time to start, memory when idle, latency of the probes in an outage.
# They are for reading, not for passing: on a shared machine they vary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mongod=$(scripts/mongod.sh)
cargo build --release --locked --bin bellwether
exec python3 scripts/bench.py "${CARGO_TARGET_DIR:-target}/release/bellwether" "$mongod"
