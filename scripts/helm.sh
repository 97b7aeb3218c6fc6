#!/usr/bin/env bash
# Prints the path of a helm that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_HELM, `helm` on PATH, the cache, and at last one that is built from Helm's own sources, which needs Go
# 1.22 or later. Nothing is installed, and no root is needed.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

version=v3.16.4
cached=$(cached_at helm "$version")

runs() { "$1" version --short >/dev/null 2>&1; }
given "${BELLWETHER_HELM:-}" "$(command -v helm || true)" "$cached"

command -v go >/dev/null || die "there is no helm, and no Go to build it with. Install Helm 3, or Go 1.22 or later," \
  "or set BELLWETHER_HELM to its path."
# Go checks the sums of the module and of all that it needs.
build() { GOBIN=$1 go install "helm.sh/helm/v3/cmd/helm@$version"; }
built "$cached" build
