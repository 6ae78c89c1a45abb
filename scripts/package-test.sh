#!/usr/bin/env bash
# Tests the Debian package in a clean Debian root: lintian, install, upgrade under load, remove, purge.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/package-test.sh [--package FILE] [--suite SUITE] [--mirror URL] [--keep DIRECTORY [--prepare]]

Builds the package (or takes FILE), looks at it with lintian, and in a clean Debian root made by debootstrap installs it, installs
a newer version while clients go on, removes and purges it. After the purge no file and no user may be left. Needs root, takes
about two minutes, and leaves nothing behind.

  --package  the package to test; built by scripts/package.sh unless given
  --suite    the Debian or Ubuntu release of the root; bookworm unless said otherwise
  --mirror   where its packages come from; by default where this machine's come from
  --keep     where the root is kept and found again, as it was made; spares half a minute
  --prepare  makes it, and no more

The last line says whether the package passed. Exits with 0 only then.
TEXT
}

package='' suite=bookworm mirror='' keep='' prepare=''
arguments=("$@")
while (($#)); do
  case $1 in
    --package) package=${2:?$1 needs a file}; shift ;;
    --suite) suite=${2:?$1 needs a release}; shift ;;
    --mirror) mirror=${2:?$1 needs an address}; shift ;;
    --keep) keep=$(readlink -m "${2:?$1 needs a directory}"); shift ;;
    --prepare) prepare=yes ;;
    --help | -h) usage; exit 0 ;;
    *) say "${0##*/}: unknown argument '$1'; try: scripts/package-test.sh --help"; exit 2 ;;
  esac
  shift
done
((EUID == 0)) || die "needs root for a Debian root of its own"
[[ -z $prepare || -n $keep ]] || die "--prepare needs --keep DIRECTORY"

# In namespaces of its own: a balancer that runs on this machine is neither seen nor stopped, and whatever is started or mounted
# here goes when this script does.
if [[ -z ${BALANCER_PACKAGE_TEST_ISOLATED:-} ]]; then
  export BALANCER_PACKAGE_TEST_ISOLATED=yes
  exec unshare --pid --fork --kill-child --mount --mount-proc scripts/package-test.sh "${arguments[@]}"
fi
(($$ == 1)) || die "BALANCER_PACKAGE_TEST_ISOLATED is set, but this process is not the first of its namespace"
# The first process of a namespace hears only the signals that it handles.
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing "${package_needs[@]}"
[[ -n $mirror ]] || mirror=$(own_mirror)

work=$(mktemp -d "${TMPDIR:-/tmp}/balancer-package.XXXXXX")
root=$work/root pids=()
cleanup() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  # A balancer that still runs inside ends with the namespace, after this: it must not keep the mounts.
  umount --lazy "$root/proc" "$root/dev" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
inside=/etc/balancer/package-test.yaml
trap cleanup EXIT

step() { say "== $*"; }
fail() { die "FAILED: $*"; }

clean=${keep:-$work}/clean-$suite
mkdir -p "${keep:-$work}"
make_root "$clean" "$suite" "$mirror" adduser,procps,passwd
if [[ -n $prepare ]]; then exit 0; fi
cp -a --reflink=auto "$clean" "$root"

[[ -n $package ]] || package=$(scripts/package.sh)
step "lintian"
lintian --fail-on error "$package" || fail "lintian finds errors"

mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
cp "$package" "$root/first.deb"
# A newer version with the same content.
dpkg-deb -R "$package" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
dpkg-deb -b "$work/newer" "$root/newer.deb" >/dev/null
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }

# What dpkg, ld.so and adduser keep of their own is not the package's.
list() {
  (
    cd "$root"
    find . -xdev \( -path ./proc -o -path ./dev -o -path ./var/lib/dpkg -o -path ./var/log/dpkg.log -o -name '*.deb' \
      -o -path './etc/*-' -o -path './etc/.pwd.lock' -o -path ./var/log/alternatives.log -o -path ./var/cache/ldconfig \
      -o -path ./run/adduser \) -prune -o -print | sort
    cat etc/passwd etc/group
  )
}
list >"$work/before"
sysctl -a 2>/dev/null | grep -E 'port_range|tw_reuse|somaxconn|pipe-user' >"$work/kernel" || true

step "install"
in_root dpkg -i /first.deb >&2
in_root balancer --version >&2
in_root balancer check >&2 || fail "the configuration that is installed is wrong"
[[ $(in_root stat -c %U:%G:%a /etc/balancer/balancer.yaml) == root:balancer:640 ]] || fail "the configuration's owner and mode"
in_root getent passwd balancer >&2 || fail "there is no user"
for file in usr/share/man/man1/balancer.1.gz usr/share/bash-completion/completions/balancer lib/systemd/system/balancer.service \
  usr/lib/sysctl.d/50-balancer.conf etc/logrotate.d/balancer usr/share/balancer/balancer.rules.yml \
  usr/share/balancer/grafana-dashboard.json; do
  [[ -s $root/$file ]] || fail "$file is missing"
done

step "upgrade under load"
port=$((20000 + RANDOM % 10000))
cat >"$work/nginx.conf" <<TEXT
daemon off; pid $work/nginx.pid; error_log stderr error;
events { worker_connections 4096; }
http { access_log off; server { listen 127.0.0.1:$((port + 1)) backlog=4096; keepalive_timeout 0; location / { return 200 "served\n"; } } }
TEXT
nginx -p "$work" -c "$work/nginx.conf" &
pids+=($!)
cat >"$root$inside" <<TEXT
admin: { socket: /run/balancer/admin.sock }
services:
  web: { listen: 127.0.0.1:$port, backends: { web-01: 127.0.0.1:$((port + 1)) } }
TEXT
in_root install -d -o balancer /run/balancer
chroot --userspec=balancer:balancer "$root" /usr/bin/balancer run --config "$inside" 2>"$work/balancer.log" &
pids+=($!)
for _ in {1..100}; do curl -sf "127.0.0.1:$port" >/dev/null && break; sleep 0.1; done
wrk -t2 -c20 -d8s -H 'Connection: close' "http://127.0.0.1:$port/" >"$work/wrk" &
load=$!
sleep 2
before=$(in_root balancer status --json --socket /run/balancer/admin.sock | grep -m1 '"pid"')
printf 'changed: by the administrator\n' >>"$root/etc/balancer/balancer.yaml"
chmod 0644 "$root/etc/balancer/balancer.yaml"
in_root dpkg --force-confold -i /newer.deb >&2
grep -q 'by the administrator' "$root/etc/balancer/balancer.yaml" || fail "an upgrade has changed the configuration"
[[ $(stat -c %a "$root/etc/balancer/balancer.yaml") == 644 ]] || fail "an upgrade has changed the configuration's mode"
in_root balancer upgrade --socket /run/balancer/admin.sock >&2 || { cat "$work/balancer.log" >&2; fail "the new version does not take over"; }
after=$(in_root balancer status --json --socket /run/balancer/admin.sock | grep -m1 '"pid"')
[[ $before != "$after" ]] || fail "the process is the same"
wait "$load"
cat "$work/wrk" >&2
if grep -Eq 'Socket errors|Non-2xx' "$work/wrk"; then fail "clients have noticed the upgrade"; fi
[[ $(in_root balancer status --json --socket /run/balancer/admin.sock | grep -c '"refused": 0') -ge 1 ]] || fail "clients were refused"
in_root pkill -TERM -x balancer
for _ in {1..100}; do in_root pgrep -x balancer >/dev/null || break; sleep 0.1; done
in_root pgrep -x balancer >/dev/null && fail "it does not stop"

sysctl -a 2>/dev/null | grep -E 'port_range|tw_reuse|somaxconn|pipe-user' | diff "$work/kernel" - >&2 ||
  fail "an installation into a chroot has changed the settings of the kernel outside"

step "remove and purge"
rm "$root$inside"
in_root dpkg -r balancer >&2
[[ ! -e $root/usr/bin/balancer && -e $root/etc/balancer/balancer.yaml ]] || fail "a removal takes the program and leaves the configuration"
in_root dpkg -P balancer >&2
list >"$work/after"
diff "$work/before" "$work/after" >&2 || fail "the purge has left something (>) or taken something (<)"

say "the package passed: $package in $suite"
