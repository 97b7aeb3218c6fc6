#!/usr/bin/env bash
# Prints the path of a helm that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_HELM, `helm` on PATH, the cache, and at last one that is built from Helm's own sources, which needs Go
# 1.22 or later. Nothing is installed, and no root is needed.
set -euo pipefail

version=v3.16.4
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/helm/$version-$(uname -m)/helm")

runs() { "$1" version --short >/dev/null 2>&1; }
die() {
  printf 'helm.sh: %s\n' "$*" >&2
  exit 1
}

for found in "${BELLWETHER_HELM:-}" "$(command -v helm || true)" "$built"; do
  if [[ -n "$found" ]] && runs "$found"; then
    printf '%s\n' "$found"
    exit
  fi
done
command -v go >/dev/null || die "there is no helm, and no Go to build it with. Install Helm 3, or Go 1.22 or later," \
  "or set BELLWETHER_HELM to its path."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Go checks the sums of the module and of all that it needs.
GOBIN=$work go install "helm.sh/helm/v3/cmd/helm@$version" >&2
runs "$work/helm" || die "helm was built, and does not run"
mkdir -p "$(dirname "$built")"
mv "$work/helm" "$built.$$" && mv "$built.$$" "$built"
printf '%s\n' "$built"
