#!/usr/bin/env bash
# Prints the path of an azurite-blob, which stands in for Azure's storage in the tests; fetches it into .cache/ when it is
# not there, which needs npm. Everything else it says goes to standard error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=3.37.0

if [[ -n ${BELLWETHER_AZURITE:-} ]]; then
  printf '%s\n' "$BELLWETHER_AZURITE"
  exit
fi
server=$PWD/.cache/azurite/node_modules/.bin/azurite-blob
if [[ ! -x $server ]]; then
  if ! command -v npm >/dev/null; then
    echo "azurite.sh: there is no npm to fetch Azurite with. Install Node.js (Debian: apt-get install npm)," \
      "or set BELLWETHER_AZURITE to the path of an azurite-blob." >&2
    exit 69
  fi
  rm -rf .cache/azurite.new
  mkdir -p .cache/azurite.new
  npm install --prefix .cache/azurite.new --silent --no-fund --no-audit --ignore-scripts "azurite@$version" >&2
  rm -rf .cache/azurite
  mv .cache/azurite.new .cache/azurite
fi
"$server" --version >/dev/null || {
  echo "azurite.sh: $server does not run; it needs Node.js" >&2
  exit 69
}
printf '%s\n' "$server"
