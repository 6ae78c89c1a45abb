# shellcheck shell=bash
# Installs Debian and Ubuntu packages for the scripts beside it, without starting any service. Sourced, not run.

PATH=$PATH:${CARGO_HOME:-${HOME-}/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin

# What scripts/package-test.sh and scripts/vm-test.sh need.
# shellcheck disable=SC2034
package_needs=(debootstrap:debootstrap lintian:lintian nginx:nginx wrk:wrk curl:curl dpkg-deb:dpkg)
# shellcheck disable=SC2034
vm_needs=(debootstrap:debootstrap qemu-system-x86_64:qemu-system-x86 cpio:cpio dpkg-deb:dpkg gcc:gcc)

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# as_root COMMAND...: runs it as root, asking sudo only where a person can answer.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif [[ -t 2 ]]; then
    sudo "$@"
  else
    sudo -n "$@"
  fi
}

# is_missing WHAT: a command's name, or the path (with wildcards) of a file that a package brings.
is_missing() {
  if [[ $1 == /* ]]; then
    ! compgen -G "$1" >/dev/null
  else
    ! command -v "$1" >/dev/null
  fi
}

# missing_packages WHAT:PACKAGE...: prints each package whose WHAT is not there, once.
missing_packages() {
  local pair
  for pair in "$@"; do
    if is_missing "${pair%:*}"; then printf '%s\n' "${pair##*:}"; fi
  done | sort -u
}

# no_autostart on|off: keeps the distribution's services from starting while packages are installed.
# An own policy of the machine is left alone.
no_autostart() {
  local policy=/usr/sbin/policy-rc.d mark='# placed for the length of one installation by balancer'
  if [[ $1 == on && ! -e $policy ]]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  elif [[ $1 == off ]] && grep -qsF "$mark" "$policy"; then
    as_root rm -f "$policy"
  fi
}

# disable_services PACKAGE...: what was installed for tests must not start with the machine either.
disable_services() {
  [[ -d /run/systemd/system ]] || return 0
  local unit
  for unit in $(dpkg -L "$@" 2>/dev/null | sed -n 's|.*/systemd/system/\([^/@]*\.service\)$|\1|p'); do
    as_root systemctl disable --now --quiet "$unit" 2>/dev/null || true
  done
}

# install_missing WHAT:PACKAGE...: installs what is not there yet, and says so.
install_missing() {
  local packages
  mapfile -t packages < <(missing_packages "$@")
  ((${#packages[@]})) || return 0
  command -v apt-get >/dev/null || die "needs ${packages[*]}, and there is no apt-get here to install them"
  ((EUID == 0)) || command -v sudo >/dev/null ||
    die "needs root or sudo to install ${packages[*]}; or install them yourself: apt-get install ${packages[*]}"
  say "installing ${packages[*]} (their services are not started)"
  (
    trap 'no_autostart off' EXIT
    no_autostart on
    as_root apt-get update -q -o DPkg::Lock::Timeout=300 &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${packages[@]}"
  ) </dev/null >&2 || die "could not install ${packages[*]}; what apt-get said stands above"
  disable_services "${packages[@]}"
  mapfile -t packages < <(missing_packages "$@")
  ((${#packages[@]} == 0)) || die "installed, but still without what these should bring: ${packages[*]}"
}

# own_mirror: where this machine's Debian or Ubuntu packages come from.
own_mirror() {
  # shellcheck disable=SC2016 # the format is apt's own
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n1 | grep . ||
    printf 'http://deb.debian.org/debian\n'
}

# make_root DIRECTORY SUITE MIRROR PACKAGE,...: a minimal Debian or Ubuntu with these packages, unless it is there; never half of one.
make_root() {
  local directory=$1
  [[ ! -d $directory ]] || return 0
  say "== a root of $2"
  rm -rf --one-file-system "$directory.new"
  debootstrap --variant=minbase --include="$4" "$2" "$directory.new" "$3" >"$directory.log" 2>&1 ||
    { tail -5 "$directory.log" >&2; die "debootstrap failed"; }
  mv "$directory.new" "$directory"
}

# find_oha: sets oha, the client that sends when it is due (https://crates.io/crates/oha); installs it where $install is set.
# shellcheck disable=SC2154
find_oha() {
  oha=$(command -v oha || echo "$root/target/tools/bin/oha")
  [[ ! -x $oha ]] || return 0
  [[ -n $install ]] || die "missing: oha; install it (cargo install oha), or leave out --no-install"
  command -v cargo >/dev/null || die "needs oha, and there is no cargo to install it"
  say "installing oha with cargo into $root/target/tools: a few minutes, once"
  cargo install --quiet --locked --no-default-features --features rustls --root "$root/target/tools" oha >&2 || die "could not install oha"
}
