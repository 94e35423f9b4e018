#!/usr/bin/env bash
# make_root.sh SERVICE BIN_DIR OUT: the file tree of one image. No shell, no package manager: the programs, what ldd names,
# and what they open at run time. The Dockerfile and build.sh both use it.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
service=$1 bin=$2 out=$3
programs=$(awk -v s="$service" '$1 == s { $1 = ""; print }' "$HERE/services.txt")
[ -n "$programs" ] || { echo "services.txt has no $service" >&2; exit 1; }
umask 022

rm -rf "$out"
mkdir -p "$out"/{dev,proc,sys,etc/ssl/certs,etc/poststelle,usr/bin,usr/lib/ssl,usr/lib64,usr/share/doc,var/lib/poststelle,var/lib/dpkg/status.d}
mkdir -m 1777 "$out/tmp"
touch "$out"/etc/{hosts,resolv.conf}  # a container runtime mounts its own over them
ln -s usr/lib "$out/lib"
ln -s usr/lib64 "$out/lib64"

# Programs and their libraries.
for program in $programs; do
  strip --strip-unneeded -o "$out/usr/bin/$program" "$bin/$program"
done
libraries=$(for program in $programs; do ldd "$bin/$program"; done | grep -o '/[^ ]*' | sort -u)
for library in $libraries; do
  mkdir -p "$out$(dirname "$library")"
  cp -L "$library" "$out$library"
done

# iconv loads a module for each charset other than UTF-8, Latin-1 and their like: without them most mail is unreadable.
libc=$(dirname "$(grep '/libc\.so\.6$' <<<"$libraries")")
mkdir -p "$out$libc/gconv"
cp -rL "$libc/gconv/." "$out$libc/gconv"

# Debian's authorities, not those that somebody added to the machine that builds.
dpkg -L ca-certificates | grep '\.crt$' | LC_ALL=C sort | xargs cat >"$out/etc/ssl/certs/ca-certificates.crt"
ln -s /etc/ssl/certs "$out/usr/lib/ssl/certs"
ln -s /etc/ssl/certs/ca-certificates.crt "$out/usr/lib/ssl/cert.pem"

echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$out/etc/passwd"
echo 'nonroot:x:65532:' >"$out/etc/group"
echo 'hosts: files dns' >"$out/etc/nsswitch.conf"

# What is in here: for scanners of known weaknesses (status.d, as distroless images have it), and under which terms.
owners=$({ dpkg -S $libraries $(sed 's,^,/usr,' <<<"$libraries") 2>/dev/null || true; } | sed 's/: .*//' | sort -u)
for package in $owners libc6 ca-certificates; do
  name=${package%%:*}
  dpkg-query -s "$package" >"$out/var/lib/dpkg/status.d/$name"
  mkdir -p "$out/usr/share/doc/$name"
  cp -L "/usr/share/doc/$name/copyright" "$out/usr/share/doc/$name/copyright"
done
