# Sourced by run and test: installs what is missing of cmake/packages.txt. Needs root or sudo only if something is missing.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages_of() {  # SECTION: the packages listed under it
  awk -v want="[$1]" '/^\[/ { on = ($1 == want); next } on { sub(/#.*/, ""); if (NF) print $1 }' "$ROOT/cmake/packages.txt"
}

missing_of() {
  local p
  for p in $(packages_of "$1"); do
    # npm may be there without Debian's package.
    if [ "$p" = npm ] && command -v npm >/dev/null; then continue; fi
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
  done
}

install_section() {  # SECTION [apt option …]
  local missing
  missing=$(missing_of "$1")
  [ -z "$missing" ] && return 0
  echo "==> Installing:" $missing
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    # Debian starts a server when it is installed; nobody asked for that here.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=1
  fi
  # Debian's PostgreSQL makes a cluster when it is installed; nobody asked for that either.
  local cluster=/etc/postgresql-common/createcluster.conf no_cluster=
  if [ ! -e "$cluster" ]; then
    as_root mkdir -p "${cluster%/*}"
    echo 'create_main_cluster = false' | as_root tee "$cluster" >/dev/null
    no_cluster=1
  fi
  local rc=0
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install -y -qq --no-install-recommends "${@:2}" $missing >/dev/null; } || rc=$?
  [ -n "$made" ] && as_root rm -f "$policy"
  if [ -n "$no_cluster" ]; then
    # The package's own defaults from now on, or nothing if it was not among what was installed.
    if [ -e /usr/share/postgresql-common/createcluster.conf ]; then
      as_root cp /usr/share/postgresql-common/createcluster.conf "$cluster"
    else
      as_root rm -f "$cluster"
      as_root rmdir --ignore-fail-on-non-empty "${cluster%/*}"
    fi
  fi
  if [ "$rc" != 0 ]; then
    echo "Can't install: $missing" >&2
    [[ "$1" = servers || "$1" = mail-test ]] && echo "Another mail server may stand in the way; nothing of it was removed. Remove it, or use another machine." >&2
    exit 1
  fi
}

install_packages() {
  install_section build
  install_section servers --no-remove
  if [ "${1:-}" = test ]; then
    install_section test
    # Without an answer Debian's Postfix would make itself the system's mail server.
    dpkg-query -W -f='${Status}' postfix 2>/dev/null | grep -q 'ok installed' ||
      echo 'postfix postfix/main_mailer_type select No configuration' | as_root debconf-set-selections
    install_section mail-test --no-remove
  fi
  return 0
}

build() {  # PRESET TARGET…: configures and builds
  local preset=$1
  shift
  (cd "$ROOT" && cmake --preset "$preset" >"$ROOT/build/$preset.configure.log" 2>&1) ||
    { tail -30 "$ROOT/build/$preset.configure.log" >&2; exit 1; }
  ninja -C "$ROOT/build/$preset" -j"$(nproc)" "$@"
}
