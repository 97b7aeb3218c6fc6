#!/usr/bin/env bash
# Prints the path of an azurite-blob, which stands in for Azure's storage in the tests; fetches it into .cache/ when it is
# not there, which needs npm. Everything else it says goes to standard error.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

version=3.37.0
folder=$project/.cache/azurite
server=$folder/node_modules/.bin/azurite-blob

given "${BELLWETHER_AZURITE:-}"
fetch() { npm install --prefix "$1" --silent --no-fund --no-audit --ignore-scripts "azurite@$version"; }
if [[ ! -x $server ]]; then
  command -v npm >/dev/null || die -69 "there is no npm to fetch Azurite with. Install Node.js (Debian: apt-get install npm)," \
    "or set BELLWETHER_AZURITE to the path of an azurite-blob."
  installed "$folder" fetch
fi
"$server" --version >/dev/null || die -69 "$server does not run; it needs Node.js"
printf '%s\n' "$server"
