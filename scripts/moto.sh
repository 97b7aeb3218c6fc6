#!/usr/bin/env bash
# Prints the path of a moto_server, which stands in for S3 in the tests; fetches it into .cache/ when it is not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=5.2.5

if [[ -n ${BELLWETHER_MOTO:-} ]]; then
  printf '%s\n' "$BELLWETHER_MOTO"
  exit
fi
server=$PWD/.cache/moto/bin/moto_server
if [[ ! -x $server ]]; then
  mkdir -p .cache
  rm -rf .cache/moto.new
  python3 -m venv .cache/moto.new >&2
  .cache/moto.new/bin/pip install --quiet --disable-pip-version-check "moto[server,s3]==$version" >&2
  rm -rf .cache/moto
  mv .cache/moto.new .cache/moto
  # The scripts of a virtual environment name the folder that it was made in.
  sed -i '1s|/\.cache/moto\.new/|/.cache/moto/|' .cache/moto/bin/moto_server
fi
printf '%s\n' "$server"
