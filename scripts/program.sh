# shellcheck shell=bash
# Sourced by the scripts that print the path of a program and get it where there is none. The path is all that goes to
# standard output.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# die [-CODE] WORD…: says why there is no program, and ends with 1 unless told otherwise.
die() {
  local code=1
  if [[ $1 =~ ^-[0-9]+$ ]]; then
    code=${1#-}
    shift
  fi
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit "$code"
}

# given PATH…: prints the first that is not empty and ends; where there is a function `runs`, the first that runs.
given() {
  local path
  for path in "$@"; do
    if [[ -n $path ]] && { ! declare -F runs >/dev/null || runs "$path"; }; then
      printf '%s\n' "$path"
      exit
    fi
  done
}

# installed FOLDER FETCH: has a function fill a new folder, and then gives it this name: a call that is interrupted leaves
# nothing half done.
installed() {
  local folder=$1 fetch=$2
  rm -rf "$folder.new"
  mkdir -p "$folder.new"
  "$fetch" "$folder.new" >&2
  rm -rf "$folder"
  mv "$folder.new" "$folder"
}

# cached_at NAME VERSION: where a program that was built is kept.
cached_at() { realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/$1/$2-$(uname -m)/$1"; }

# built PATH BUILD: has a function make the program of this name in a folder that goes away, sees whether it runs, and prints
# its path. Of two calls at the same time neither sees half a file.
built() {
  local path=$1 build=$2 name=${1##*/}
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  ("$build" "$work") >&2
  runs "$work/$name" || die "$name was built, and does not run"
  mkdir -p "$(dirname "$path")"
  mv "$work/$name" "$path.$$" && mv "$path.$$" "$path"
  printf '%s\n' "$path"
}
