#!/usr/bin/env bash
# Prints the path of a mongorestore that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_MONGORESTORE, `mongorestore` on PATH, the cache, and at last one that is built from MongoDB's own
# sources, which needs Go 1.21 or later. Nothing is installed, and no root is needed.
set -euo pipefail
# shellcheck source=program.sh
. "$(dirname "${BASH_SOURCE[0]}")/program.sh"

# 100.9.5: its tags are none that Go knows, so that the commit is named. Go checks the sum.
version=v0.0.0-20240723193119-837c2bc263f4
sum=h1:23sRjM+3p+4yFL9tOg9qfNJHtBMl5PN5XA2iLWrYR+Y=
module=github.com/mongodb/mongo-tools
cached=$(cached_at mongorestore 100.9.5)

runs() { "$1" --version >/dev/null 2>&1; }
given "${BELLWETHER_MONGORESTORE:-}" "$(command -v mongorestore || true)" "$cached"

command -v go >/dev/null || die "there is no mongorestore, and no Go to build it with. Install MongoDB's database tools," \
  "or Go 1.21 or later, or set BELLWETHER_MONGORESTORE to its path."
build() {
  local source
  cd "$1"
  printf 'module tools\n\ngo 1.21\n\nrequire %s %s\n' "$module" "$version" >go.mod
  printf '%s %s %s\n' "$module" "$version" "$sum" >go.sum
  source=$(go mod download -json "$module" 2>/dev/null | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [[ -n $source ]] || die "the sources of mongorestore $version cannot be had"
  cd "$source"
  # Its own copies of other modules are as old as itself and leave out what Go asks for today: they are had anew.
  go build -mod=mod -o "$1/mongorestore" ./mongorestore/main
}
built "$cached" build
