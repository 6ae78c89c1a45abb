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
state: "$work/state"
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

# What all the peer's processes have used: CPU time in nanoseconds, resident bytes.
# shellcheck disable=SC2046
peer_cpu() { cpu_of $(ip netns pids "$net-peer"); }
# shellcheck disable=SC2046
peer_resident() { resident_of $(ip netns pids "$net-peer"); }
