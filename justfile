# Short names for what the scripts do; CI calls the scripts themselves.

# Lists the recipes
default:
    @just --list

# The quick checks: format and lints
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# Everything that CI runs
test:
    ./test.sh

# The demo; `just demo --once` plays it through and verifies it
demo *arguments:
    ./demo.sh {{ arguments }}

# Memory, start and probe latency, and the speed of the log engine, in figures
bench:
    scripts/bench.sh
    cargo bench --locked --bench log_engine

# The log engine in figures, beside newline counting, serde_json and mtail (Debian package `mtail`); then the latency,
# the idle CPU time and the memory of a release build that follows logs
bench-logs *arguments:
    cargo bench --locked --bench log_engine -- {{ arguments }}
    cargo build --release --locked --bin bellwether
    scripts/bench_logs.py "${CARGO_TARGET_DIR:-target}/release/bellwether"

# What a hundred checks cost, and what a minute of a frozen server does, in figures
bench-health:
    scripts/bench.sh health

# A scrape of 2,000 and of 100,000 series, and what asking all alert rules costs, in figures. On a busy machine put
# `chrt -r 10` before it, or the figures are those of the others.
bench-scrape binary="target/release/bellwether":
    scripts/bench_scrape.py {{ binary }} "$(scripts/mongod.sh)"

# Retention beside a bare deleteMany: speed, a reader's latency, memory, plans, in figures; needs pymongo. On a busy machine put
# `chrt -r 10` before it, or the latencies are those of the others.
bench-retention *parts:
    cargo build --release --locked --bin bellwether
    scripts/bench_retention.py "${CARGO_TARGET_DIR:-target}/release/bellwether" "$(scripts/mongod.sh)" {{ parts }}

# The front door beside nginx before the same upstream: requests/s, p99, memory; needs the Debian packages nginx and wrk
bench-front rounds="5" seconds="8":
    cargo build --release --locked --bin bellwether
    scripts/bench_front.py "${CARGO_TARGET_DIR:-target}/release/bellwether" {{ rounds }} {{ seconds }}

# Kills the sidecar a thousand times while a log is written and rotated, and compares its counters with the truth
soak-logs kills="1000":
    cargo build --release --locked --bin bellwether
    scripts/soak_logs.py target/release/bellwether {{ kills }}

# Kills runs of retention so often at random moments, on a standalone server and a replica set, and looks after each one
# whether every document is in its collection or in a verified archive
soak-retention kills="200":
    BELLWETHER_KILLS={{ kills }} cargo test --locked --test it -- --nocapture retention_faults::a_kill

# Runs a fuzz target for so many seconds: framing, scanner, snapshot. Needs `cargo install cargo-fuzz` and a C++ compiler. The stable
# toolchain is enough: coverage is asked for by a flag that it only has to be told about, and no sanitizer is needed, as
# there is no unsafe code of ours.
fuzz target seconds="60":
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }} -max_len=4096

# Looks for a thousand secrets in cores of the running sidecar, and shows that the search finds one that is there; needs gdb
core-scan *count:
    cargo build --release --locked --bin bellwether
    scripts/core_scan.py "${CARGO_TARGET_DIR:-target}/release/bellwether" {{ count }}

# How long 10,000 secrets take to be encrypted and rotated, in figures; needs pymongo
bench-secrets *count:
    cargo build --release --locked --bin bellwether
    scripts/bench_secrets.py "${CARGO_TARGET_DIR:-target}/release/bellwether" "$(scripts/mongod.sh)" {{ count }}
