#!/usr/bin/env bash
# Prints a folder with kube-apiserver and kube-controller-manager; everything else it says goes to standard error.
#
# Order: $BELLWETHER_KUBERNETES, the cache, and at last both are built from the sources of Kubernetes, which needs Go and takes
# some seven minutes of CPU time, once. Nothing is installed, and no root is needed.
set -euo pipefail

version=1.34.4
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/kubernetes/$version-$(uname -m)")
programs=(kube-apiserver kube-controller-manager)

die() {
  printf 'kubernetes.sh: %s\n' "$*" >&2
  exit 1
}

runs() {
  local program
  for program in "${programs[@]}"; do
    "$1/$program" --version >/dev/null 2>&1 || return
  done
}

for found in "${BELLWETHER_KUBERNETES:-}" "$built"; do
  if [[ -n "$found" ]] && runs "$found"; then
    printf '%s\n' "$found"
    exit
  fi
done
command -v go >/dev/null || die "there is no Kubernetes, and no Go to build it with. Install Go 1.24 or later," \
  "or set BELLWETHER_KUBERNETES to a folder with ${programs[*]}."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/module" "$work/programs"
cd "$work/module"
# The sources name their own parts by folders of the same repository; as modules these are released beside it, as v0.MINOR.PATCH.
go mod init bellwether.test/kubernetes >&2
parts=$(go mod download -json "k8s.io/kubernetes@v$version" | python3 -c '
import json, re, sys
text = open(json.load(sys.stdin)["GoMod"]).read()
print(" ".join(re.findall(r"^\s*(k8s\.io/[a-z-]+) => \./staging", text, re.MULTILINE)))')
[[ -n "$parts" ]] || die "the module of Kubernetes $version has another form than is known here"
for part in $parts; do
  go mod edit "-replace=$part=$part@v0.${version#1.}"
done
go mod edit "-require=k8s.io/kubernetes@v$version"
# Go checks the sums of the module and of all that it needs.
for program in "${programs[@]}"; do
  GOFLAGS=-mod=mod go build -ldflags '-s -w' -o "$work/programs/$program" "k8s.io/kubernetes/cmd/$program" >&2
done
runs "$work/programs" || die "Kubernetes was built, and does not run"
mkdir -p "$(dirname "$built")"
if mv "$work/programs" "$built.$$" && ! mv --no-target-directory "$built.$$" "$built" 2>/dev/null; then
  # Another call was faster.
  rm -rf "$built.$$"
fi
printf '%s\n' "$built"
