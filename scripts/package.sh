#!/usr/bin/env bash
# Builds the Debian package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

if (($#)); then
  say "Usage: scripts/package.sh"
  say "Builds the program (profile dist), its manual pages and shell completions, and from them the Debian package; prints its path."
  say "Installs cargo-deb where it is missing."
  if [[ $1 == --help || $1 == -h ]]; then exit 0; else exit 2; fi
fi
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null || die "needs Rust (cargo); https://rustup.rs installs it"
# Not optimised: it is compiled in half the time, and used once.
command -v cargo-deb >/dev/null || cargo install --locked --debug cargo-deb >&2
install_missing dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev gzip:gzip

cargo build --locked --profile dist >&2
rm -rf target/package
mkdir -p target/package
target/dist/balancer man --output target/package/man
target/dist/balancer completions bash >target/package/balancer.bash
target/dist/balancer completions zsh >target/package/_balancer
target/dist/balancer completions fish >target/package/balancer.fish
# --deb-revision: the packaging's own version, of packaging/debian/changelog.
cargo deb --locked --no-build --strip --deb-revision 1 --output target/package/ "$@" >&2
printf '%s\n' target/package/*.deb
