#!/usr/bin/env bash
# Tests the Debian package and the forwarding core in a virtual machine with a kernel and a systemd of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/vm-test.sh [--package FILE] [--mirror URL] [--keep DIRECTORY [--prepare]]

Makes a virtual machine of Debian 12 (kernel 6.1, systemd 252) from Debian's packages, under qemu's software emulation: no /dev/kvm
is needed. In it the package is installed, started, reloaded, hung, killed, upgraded under load, stopped, started by a socket unit
and purged, and the behaviours of the forwarding core run on that kernel (scripts/vm/checks.sh). Needs root and 3 GiB of memory,
and takes about three minutes.

  --package  the package to test; built by scripts/package.sh unless given
  --mirror   where Debian's packages come from; by default where this machine's come from
  --keep     where the root and the kernel are kept and found again, which spares half a minute
  --prepare  makes these two, and no more

Each check is a line, PASS or FAIL. Exits with 0 only if all have passed.
TEXT
}

package='' mirror='' keep='' prepare=''
while (($#)); do
  case $1 in
    --package) package=$(readlink -f "${2:?$1 needs a file}"); shift ;;
    --mirror) mirror=${2:?$1 needs an address}; shift ;;
    --keep) keep=${2:?$1 needs a directory}; shift ;;
    --prepare) prepare=yes ;;
    --help | -h) usage; exit 0 ;;
    *) say "${0##*/}: unknown argument '$1'; try: scripts/vm-test.sh --help"; exit 2 ;;
  esac
  shift
done
((EUID == 0)) || die "needs root to make a Debian root"
[[ -z $prepare || -n $keep ]] || die "--prepare needs --keep DIRECTORY"

install_missing "${vm_needs[@]}"
[[ -n $mirror ]] || mirror=$(own_mirror)
work=$(mktemp -d "${TMPDIR:-/tmp}/balancer-vm.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
kept=${keep:-$work}
mkdir -p "$kept"

if [[ ! -e $kept/vmlinuz ]]; then
  say "== the kernel"
  kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  (cd "$work" && apt-get download "$kernel" >/dev/null)
  dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz-*'
  cp "$work"/boot/vmlinuz-* "$kept/vmlinuz"
fi
make_root "$kept/root" bookworm "$mirror" systemd-sysv,adduser,procps,iproute2,curl,nginx-light,wrk,python3
if [[ -n $prepare ]]; then exit 0; fi

[[ -n $package ]] || package=$PWD/$(scripts/package.sh)
say "== the tests and the machine's contents"
tests=$(cargo test --locked --no-run --message-format=json --test behaviours 2>/dev/null | sed -n 's/.*"name":"behaviours".*"executable":"\([^"]*\)".*/\1/p')
program=$PWD/target/debug/balancer
machine=$work/machine
cp -a "$kept/root" "$machine"
rm -rf "$machine"/var/cache/apt/archives/*.deb "$machine"/usr/share/{locale,doc,man}/* "$machine"/var/lib/apt/lists/*
mkdir -p "$machine/vm/tests"
cp "$package" "$machine/vm/first.deb"
dpkg-deb -R "$package" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
dpkg-deb -b "$work/newer" "$machine/vm/newer.deb" >/dev/null
if [[ -n $tests ]]; then
  objcopy --strip-debug "$tests" "$machine/vm/tests/behaviours"
  objcopy --strip-debug "$program" "$machine/vm/tests/balancer"
  printf '%s' "$program" >"$machine/vm/tests/program"
fi
install -m 755 scripts/vm/checks.sh "$machine/vm/checks.sh"
cat >"$machine/etc/systemd/system/vm-checks.service" <<'TEXT'
[Unit]
Description=The checks of scripts/vm-test.sh
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/vm/checks.sh
ExecStopPost=/usr/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
LimitNOFILE=20000
[Install]
WantedBy=default.target
TEXT
ln -sf /dev/null "$machine/etc/systemd/system/serial-getty@ttyS0.service"
ln -sf /dev/null "$machine/etc/systemd/system/nginx.service"
ln -sf /dev/null "$machine/etc/systemd/system/getty@tty1.service"
mkdir -p "$machine/etc/systemd/system/default.target.wants"
ln -sf ../vm-checks.service "$machine/etc/systemd/system/default.target.wants/vm-checks.service"
ln -sf sbin/init "$machine/init"
(cd "$machine" && find . -xdev -print0 | cpio --null --create --format=newc --quiet | gzip -1) >"$work/initrd"
rm -rf "$machine" "$work/newer"

say "== the machine: booting takes a minute or two"
timeout 2400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nographic -no-reboot -nic none \
  -kernel "$kept/vmlinuz" -initrd "$work/initrd" -append 'console=ttyS0 quiet systemd.show_status=false panic=-1' </dev/null |
  sed -u 's/\r//g' | tee "$work/console" | sed -un 's/^.*VM \(PASS\|FAIL\|  \|Linux\|END\)/\1/p' || true

passed=$(grep -c 'VM PASS' "$work/console" || true)
failed=$(grep -c 'VM FAIL' "$work/console" || true)
if ! grep -q 'VM END' "$work/console"; then
  tail -n 30 "$work/console" >&2
  die "the machine has not come to its end: $passed checks passed, $failed failed"
fi
say "$passed checks passed, $failed failed"
((failed == 0))
