# shellcheck shell=bash disable=SC2154,SC2034
# The balancer under load: one that runs, or one of our own with its servers. Sourced by load.sh.

# find_running: the process behind the address, as far as it can be found.
find_running() {
  status_binary=$(command -v balancer || echo "$root/target/dist/balancer")
  if [[ -n $pid ]]; then
    who="$(ps -o comm= -p "$pid") (process $pid)"
    socket='' status_binary=''
  elif status >"$work/status.json" 2>/dev/null; then
    if [[ -z $socket ]] && ! serves_address; then
      say "the balancer of this machine does not serve $address: costs and memory are not measured (--socket, --pid)"
      who=unknown status_binary=''
      return
    fi
    pid=$(sed -n 's/^  "pid": \([0-9]*\).*/\1/p' "$work/status.json")
    who="$("$status_binary" --version) (process $pid)"
  else
    say "no balancer answers ${socket:+at $socket }on its admin socket: costs and memory are not measured (--socket, --pid)"
    who=unknown
  fi
}

# status: the balancer's own view, as JSON.
status() { [[ -n $status_binary ]] && "$status_binary" status --json ${socket:+--socket "$socket"}; }

# counter NAME: a number of each service, summed; its backends have the same names, further in.
counter() { status | awk -F'[:,]' -v name="      \"$1\"" '$1 == name { sum += $2 } END { print sum + 0 }'; }

# serves_address: whether the status that was read is that of a balancer which listens at the address of this machine.
serves_address() {
  local host=${address%:*}
  host=${host#[}
  [[ $(ip route get "${host%]}" 2>/dev/null) == local\ * ]] && grep -qE "^        \"[^\"]*:${address##*:}\",?$" "$work/status.json"
}

# start_own: this balancer in front of two nginx servers, on ports that are free.
start_own() {
  if [[ -z $binary ]]; then
    binary=$root/target/dist/balancer
    if [[ ! -x $binary ]]; then
      command -v cargo >/dev/null || die "no $binary yet, and no cargo to build it; or name one with --binary"
      say "building $binary"
      (cd "$root" && cargo build --profile dist --locked >&2) || die "the build failed"
    fi
  fi
  [[ -x $binary ]] || die "cannot run $binary"
  local version
  version=$("$binary" --version 2>&1) || die "$binary does not say its version: is it a balancer? It said: ${version%%$'\n'*}"
  status_binary=$binary socket=$work/admin.sock
  truncate -s 1G "$work/large"
  local port
  # Below the ports that the kernel gives to connections.
  for port in $(shuf -i 10000-32000 -n 20); do
    [[ -z $(ss -Hltn "sport >= :$port and sport <= :$((port + 2))") ]] && break
  done
  address=127.0.0.1:$port
  cat >"$work/nginx.conf" <<CFG
daemon off;
worker_processes auto;
worker_rlimit_nofile $(ulimit -n);
pid $work/nginx.pid;
error_log stderr warn;
events { worker_connections $((most + 100)); }
http {
  access_log off;
  sendfile on;
  keepalive_timeout 1h;
  keepalive_requests 100000000;
  server {
    listen 127.0.0.1:$((port + 1)) backlog=4096;
    listen 127.0.0.1:$((port + 2)) backlog=4096;
    location / { return 200 "ok\n"; }
    location = /large { root $work; }
    location /large/ { return 404; }
  }
}
CFG
  cat >"$work/balancer.yaml" <<YAML
workers: $workers
admin: { socket: "$socket" }
state: "$work/state"
services:
  load:
    listen: $address
    backends: { server-1: "127.0.0.1:$((port + 1))", server-2: "127.0.0.1:$((port + 2))" }
YAML
  # nginx's workers read the file as another user.
  chmod 755 "$work"
  background nginx nginx -e stderr -p "$work" -c "$work/nginx.conf"
  background balancer "$binary" run --config "$work/balancer.yaml"
  pid=$!
  who="$version, started for this, $workers workers"
  local deadline=$((SECONDS + 10))
  until curl -sf -o /dev/null --max-time 1 "http://$address/"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$pid" 2>/dev/null; then
      die "the balancer or its servers did not start; they said: $(tail -n 5 "$work/balancer.log" "$work/nginx.log")"
    fi
    sleep 0.1
  done
}

# background NAME COMMAND...: runs until the script ends, its output in NAME.log.
background() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 </dev/null &
}
