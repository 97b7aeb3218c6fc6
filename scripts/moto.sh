#!/usr/bin/env bash
# Prints the path of a moto_server, which stands in for S3 in the tests; fetches it into .cache/ when it is not there.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

version=5.2.5
folder=$project/.cache/moto
server=$folder/bin/moto_server

given "${BELLWETHER_MOTO:-}"
fetch() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check "moto[server,s3]==$version"
  # The scripts of a virtual environment name the folder that it was made in.
  sed -i '1s|/\.cache/moto\.new/|/.cache/moto/|' "$1/bin/moto_server"
}
[[ -x $server ]] || installed "$folder" fetch
printf '%s\n' "$server"
