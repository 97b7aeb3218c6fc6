#!/usr/bin/env bash
# Everything that must hold before a change goes in; CI runs this and nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

built="${CARGO_TARGET_DIR:-target}/debug"
start_limit=60 # seconds; only ends a wait that would last for ever
stop_limit=30

step() { printf '\n== %s\n' "$*"; }
die() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}

work=$(mktemp -d)
started=()
clean_up() {
  local status=$? pid
  for pid in "${started[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${started[@]}"; do
    ended "$pid" || kill -KILL "$pid" 2>/dev/null || true
  done
  wait
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The shell collects its children by itself, so a process that ended is no longer there to be signalled.
ended() {
  local end=$((SECONDS + stop_limit))
  while kill -0 "$1" 2>/dev/null; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# answers URL FILE: waits until URL gives a 2xx, whose body then is in FILE.
answers() {
  local end=$((SECONDS + start_limit))
  until curl --silent --fail --noproxy '*' --max-time 5 --output "$2" "$1"; do
    kill -0 "$sidecar" 2>/dev/null || die "the sidecar ended before $1 answered: $(tail -n 5 "$work/sidecar.log")"
    ((SECONDS < end)) || die "$1 did not answer 200 within $start_limit s: $(tail -n 5 "$work/sidecar.log")"
    sleep 0.2
  done
}

live_scrape() {
  local mongodb_port sidecar_port status=0
  mongodb_port=$(free_port)
  mkdir "$work/mongod" "$work/state"
  "$BELLWETHER_MONGOD" --dbpath "$work/mongod" --port "$mongodb_port" --bind_ip 127.0.0.1 --nounixsocket \
    --wiredTigerCacheSizeGB 0.25 >"$work/mongod.log" 2>&1 &
  started+=($!)

  sidecar_port=$(free_port)
  # With these variables alone: whatever else is set where this runs must not change what is tested.
  env -i MONGODB_URI="mongodb://127.0.0.1:$mongodb_port" BELLWETHER_LISTEN="127.0.0.1:$sidecar_port" \
    BELLWETHER_STATE_DIR="$work/state" "$built/bellwether" run --profile decisionbox >"$work/sidecar.log" 2>&1 &
  sidecar=$!
  started+=("$sidecar")

  answers "http://127.0.0.1:$sidecar_port/startupz" "$work/startupz"
  answers "http://127.0.0.1:$sidecar_port/metrics" "$work/metrics"
  # Exits with 3 where the exposition can be read but breaks a rule: that is a failure too.
  promtool check metrics <"$work/metrics"

  kill -TERM "$sidecar" || die "the sidecar ended by itself: $(tail -n 5 "$work/sidecar.log")"
  ended "$sidecar" || die "the sidecar did not end within $stop_limit s of SIGTERM"
  wait "$sidecar" || status=$?
  ((status == 0)) || die "the sidecar ended with $status on SIGTERM: $(tail -n 5 "$work/sidecar.log")"
  echo "$(grep -c '^# TYPE' "$work/metrics") metric families; SIGTERM ended the sidecar with 0"
}

step "tools"
scripts/tools.sh
BELLWETHER_MONGOD=$(scripts/mongod.sh)
export BELLWETHER_MONGOD
echo "mongod: $BELLWETHER_MONGOD"
if unshare --user --map-root-user --net --mount true 2>/dev/null; then
  echo "namespaces: yes; packets are dropped by the kernel and names are answered by a server of the tests"
else
  echo "namespaces: NOT HERE; the tests that need a network of their own are left out (health_network), those through a proxy run"
  export BELLWETHER_NO_NAMESPACES=1
fi
BELLWETHER_MOTO=$(scripts/moto.sh)
export BELLWETHER_MOTO
if BELLWETHER_AZURITE=$(scripts/azurite.sh); then
  export BELLWETHER_AZURITE
  echo "azurite: $BELLWETHER_AZURITE"
else
  unset BELLWETHER_AZURITE
  echo "azurite: NOT HERE; archives in Azure are not tried"
fi
if BELLWETHER_MONGORESTORE=$(scripts/mongorestore.sh); then
  export BELLWETHER_MONGORESTORE
  echo "mongorestore: $BELLWETHER_MONGORESTORE"
else
  unset BELLWETHER_MONGORESTORE
  echo "mongorestore: NOT HERE; a dump is compared with what it reads, and not given to it"
fi
if BELLWETHER_HELM=$(scripts/helm.sh); then
  export BELLWETHER_HELM
  echo "helm: $BELLWETHER_HELM"
else
  unset BELLWETHER_HELM
  echo "helm: NOT HERE; that the chart holds what its sources make is looked at, and what Helm makes of it is not"
fi
if BELLWETHER_KUBERNETES=$(scripts/kubernetes.sh); then
  export BELLWETHER_KUBERNETES
  echo "kubernetes: $BELLWETHER_KUBERNETES"
else
  unset BELLWETHER_KUBERNETES
  echo "kubernetes: NOT HERE; agents as Jobs are not tried"
fi

step "format"
cargo fmt --check

step "clippy"
cargo clippy --all-targets --locked -- -D warnings

step "tests"
cargo test --locked
# Together with an example, so that the dependencies are those of the tests and nothing is built twice.
cargo build --locked --bin bellwether --example demo

step "alert rules"
shopt -s nullglob
rules=(alerts/*.rules.yml)
rule_tests=(alerts/tests/*.yml)
shopt -u nullglob
((${#rules[@]})) || die "there are no rules in alerts/*.rules.yml to check"
((${#rule_tests[@]})) || die "there are no tests of the rules in alerts/tests/*.yml"
promtool check rules --lint=all --lint-fatal "${rules[@]}"
promtool test rules "${rule_tests[@]}"

# What the command line gives out must be as good as the files.
"$built/bellwether" export alerts --set DecisionBoxRunTooLong.warning.threshold=45m >"$work/exported.rules.yml"
promtool check rules --lint=all --lint-fatal "$work/exported.rules.yml"

step "Alertmanager"
scripts/alertmanager.sh

step "live scrape"
live_scrape

step "demo, played through once"
MONGODB_URI='' "$built/examples/demo" --once

step "dependencies"
if deny=$(scripts/cargo-deny.sh); then
  "$deny" --locked check bans licenses sources
  # The list of advisories lives in a repository of its own, which cannot be reached from everywhere.
  if "$deny" fetch db 2>/dev/null; then
    "$deny" --locked check advisories
  else
    echo "the list of advisories cannot be fetched from here, so advisories are not checked"
  fi
else
  echo "cargo-deny: NOT HERE; licences, sources and advisories are not checked"
fi

step "all of it holds"
