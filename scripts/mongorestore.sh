#!/usr/bin/env bash
# Prints the path of a mongorestore that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_MONGORESTORE, `mongorestore` on PATH, the cache, and at last one that is built from MongoDB's own
# sources, which needs Go 1.21 or later. Nothing is installed, and no root is needed.
set -euo pipefail

# 100.9.5: its tags are none that Go knows, so that the commit is named. Go checks the sum.
version=v0.0.0-20240723193119-837c2bc263f4
sum=h1:23sRjM+3p+4yFL9tOg9qfNJHtBMl5PN5XA2iLWrYR+Y=
module=github.com/mongodb/mongo-tools
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/mongorestore/100.9.5-$(uname -m)/mongorestore")

runs() { "$1" --version >/dev/null 2>&1; }
die() {
  printf 'mongorestore.sh: %s\n' "$*" >&2
  exit 1
}

for found in "${BELLWETHER_MONGORESTORE:-}" "$(command -v mongorestore || true)" "$built"; do
  if [[ -n "$found" ]] && runs "$found"; then
    printf '%s\n' "$found"
    exit
  fi
done
command -v go >/dev/null || die "there is no mongorestore, and no Go to build it with. Install MongoDB's database tools," \
  "or Go 1.21 or later, or set BELLWETHER_MONGORESTORE to its path."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf 'module tools\n\ngo 1.21\n\nrequire %s %s\n' "$module" "$version" >"$work/go.mod"
printf '%s %s %s\n' "$module" "$version" "$sum" >"$work/go.sum"
cd "$work"
source=$(go mod download -json "$module" 2>/dev/null | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
[[ -n "$source" ]] || die "the sources of mongorestore $version cannot be had"
mkdir -p "$(dirname "$built")"
# Its own copies of other modules are as old as itself and leave out what Go asks for today: they are had anew.
(cd "$source" && go build -mod=mod -o "$work/mongorestore" ./mongorestore/main) >&2
runs "$work/mongorestore" || die "mongorestore was built, and does not run"
mv "$work/mongorestore" "$built.$$" && mv "$built.$$" "$built"
printf '%s\n' "$built"
