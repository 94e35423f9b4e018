#!/usr/bin/env bash
# build.sh [BUILD_DIR]: every image of services.txt as build/images/SERVICE.tar (an OCI archive), from a release build, without
# a Docker daemon and without root. An image whose programs, libraries and recipe are unchanged is kept.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
BUILD=${1:-$ROOT/build/release}
OUT=$ROOT/build/images
VERSION=$(sed -n 's/^project(poststelle VERSION \([^ ]*\).*/\1/p' "$ROOT/CMakeLists.txt")
mkdir -p "$OUT"
scratch=$(mktemp -d "$OUT/root.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

inputs() {  # PROGRAM…: what the image is made of, as one digest
  (
    cd "$BUILD/bin"
    sha256sum "$@" "$HERE"/{make_root.sh,pack.py,Dockerfile,services.txt} | sed 's, .*/, ,'
    for program in "$@"; do ldd "$program"; done | grep -o '/[^ ]*' | sort -u | xargs stat -L -c '%n %s %Y'
    dpkg-query -W ca-certificates libc6
    echo "$VERSION"
  ) | sha256sum
}

while read -r service programs; do
  [ "${service:0:1}" = "#" ] && continue
  key=$(inputs $programs)
  if [ -e "$OUT/$service.tar" ] && [ "$(cat "$OUT/$service.key" 2>/dev/null)" = "$key" ]; then
    echo "poststelle-$service:$VERSION: unchanged, $(stat -c %s "$OUT/$service.tar" | awk '{ printf "%.1f", $1 / 1e6 }') MB to pull"
    continue
  fi
  "$HERE/make_root.sh" "$service" "$BUILD/bin" "$scratch/$service"
  /usr/bin/python3 -B "$HERE/pack.py" "$service" "$scratch/$service" "poststelle-$service:$VERSION" "$OUT/$service.tar"
  echo "$key" >"$OUT/$service.key"
done <"$HERE/services.txt"
