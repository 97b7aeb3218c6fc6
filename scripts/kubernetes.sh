#!/usr/bin/env bash
# Prints a folder with kube-apiserver and kube-controller-manager; everything else it says goes to standard error.
#
# Order: $BELLWETHER_KUBERNETES, the cache, and at last both are built from the sources of Kubernetes, which needs Go and takes
# some nine minutes of CPU time, once. Nothing is installed, and no root is needed.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

version=1.34.4
folder=$(realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/kubernetes/$version-$(uname -m)")
programs=(kube-apiserver kube-controller-manager)

runs() {
  local program
  for program in "${programs[@]}"; do
    "$1/$program" --version >/dev/null 2>&1 || return
  done
}
given "${BELLWETHER_KUBERNETES:-}" "$folder"

command -v go >/dev/null || die "there is no Kubernetes, and no Go to build it with. Install Go 1.24 or later," \
  "or set BELLWETHER_KUBERNETES to a folder with ${programs[*]}."

# The sources name their own parts by folders of one repository; as modules these are released beside it, as v0.MINOR.PATCH.
# Go checks the sums of the module and of all that it needs.
build() {
  local target=$1 part parts program
  module=$(mktemp -d)
  trap 'rm -rf "$module"' EXIT
  cd "$module"
  go mod init bellwether.test/kubernetes
  parts=$(go mod download -json "k8s.io/kubernetes@v$version" | python3 -c '
import json, re, sys
text = open(json.load(sys.stdin)["GoMod"]).read()
print(" ".join(re.findall(r"^\s*(k8s\.io/[a-z-]+) => \./staging", text, re.MULTILINE)))')
  [[ -n $parts ]] || die "the module of Kubernetes $version has another form than is known here"
  for part in $parts; do
    go mod edit "-replace=$part=$part@v0.${version#1.}"
  done
  go mod edit "-require=k8s.io/kubernetes@v$version"
  for program in "${programs[@]}"; do
    GOFLAGS=-mod=mod go build -ldflags '-s -w' -o "$target/$program" "k8s.io/kubernetes/cmd/$program"
  done
  runs "$target" || die "Kubernetes was built, and does not run"
}
installed "$folder" build
printf '%s\n' "$folder"
