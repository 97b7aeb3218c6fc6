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

# Memory, start and probe latency in figures
bench:
    scripts/bench.sh
