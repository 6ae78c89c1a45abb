#!/usr/bin/env bash
# Runs one Traefik, version 2 or 3, as a plain TCP balancer in front of one server: a peer of compare.sh.
set -euo pipefail

if (($# != 4)) || [[ $1 == -* ]]; then
  echo "Usage: scripts/compare/traefik.sh BINARY LISTEN TARGET DIR" >&2
  echo "One thread for its code (GOMAXPROCS), no access log, no telemetry; its configuration goes to DIR." >&2
  if [[ ${1-} == --help ]]; then exit 0; else exit 2; fi
fi
binary=$1 listen=$2 target=$3 dir=$4

cat >"$dir/static.yaml" <<YAML
global: { checkNewVersion: false, sendAnonymousUsage: false }
log: { level: ERROR }
entryPoints: { load: { address: "$listen" } }
providers: { file: { filename: "$dir/dynamic.yaml", watch: false } }
YAML
cat >"$dir/dynamic.yaml" <<YAML
tcp:
  routers: { load: { entryPoints: [load], rule: "HostSNI(\`*\`)", service: server } }
  services: { server: { loadBalancer: { servers: [{ address: "$target" }] } } }
YAML
GOMAXPROCS=1 exec "$binary" --configFile="$dir/static.yaml"
