# shellcheck shell=bash disable=SC2154
# balancer, HAProxy and nginx: how each is started, and what it has used. Sourced by compare.sh.

# start_peer NAME PORT: puts it in front of the server's PORT, one worker, no access log; all three set TCP_NODELAY
# by themselves. Everything not named here is the peer's own default.
start_peer() {
  local peer=$1 target=$server:$2
  case $peer in
    balancer)
      cat >"$work/balancer.yaml" <<YAML
workers: 1
admin: { socket: "$work/admin.sock" }
services:
  load:
    listen: $front:$port
    backends: { server: "$target" }
YAML
      start peer balancer "$binary" run --config "$work/balancer.yaml"
      ;;
    haproxy)
      cat >"$work/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn $most_sessions
defaults
  mode tcp
  maxconn $most_sessions
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option splice-auto
frontend load
  bind $front:$port
  default_backend servers
backend servers
  server server $target
CFG
      start peer haproxy haproxy -db -f "$work/haproxy.cfg"
      ;;
    nginx)
      cat >"$work/nginx.conf" <<CFG
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $work/nginx.pid;
error_log stderr warn;
events { worker_connections $((most_sessions * 2)); }
stream {
  access_log off;
  proxy_connect_timeout 5s;
  proxy_timeout 1h;
  server {
    listen $front:$port backlog=4096;
    proxy_pass $target;
  }
}
CFG
      start peer nginx nginx -e stderr -p "$work" -c "$work/nginx.conf"
      ;;
  esac
  listening peer "$port" && return
  say "  $peer does not accept on its port; it said:"
  last_words "$peer"
  return 1
}

# The CPU time of all the peer's processes in nanoseconds. The scheduler's figure of each thread is exact but forgets
# threads that have ended; the process's own remembers them, in ticks of 10 ms. The larger one of a process is right.
peer_cpu() {
  local pid
  for pid in $(ip netns pids "$net-peer"); do
    awk -v hz="$(getconf CLK_TCK)" '
      FILENAME ~ /stat$/ && FILENAME !~ /schedstat$/ { sub(/.*\) /, ""); ticks = $12 + $13; next }
      { ns += $1 }
      END { whole = ticks * 1e9 / hz; printf "%.0f\n", (ns > whole ? ns : whole) }
    ' "/proc/$pid/stat" "/proc/$pid"/task/*/schedstat
  done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# The resident bytes of all the peer's processes; counted page by page, where VmRSS may be off by some hundred.
peer_resident() {
  local pid
  for pid in $(ip netns pids "$net-peer"); do
    awk '$1 == "Rss:" { print $2 * 1024 }' "/proc/$pid/smaps_rollup"
  done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}
