# shellcheck shell=bash disable=SC2154
# Who is measured: how each is started, and what it has used. Sourced by compare.sh.

# start_peer NAME PORT: puts it in front of the server's PORT, one worker, no access log; the three of our own choice set
# TCP_NODELAY by themselves. Everything not named here is the peer's own default.
start_peer() {
  local peer=$1 target=$server:$2 command
  case $peer in
    balancer)
      balancer_config "$2" >"$work/balancer.yaml"
      start peer balancer "$binary" run --config "$work/balancer.yaml"
      ;;
    haproxy) start peer haproxy "$root/scripts/compare/haproxy.sh" haproxy "$front:$port" "$target" "$work" "$most_sessions" ;;
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
    nat)
      translate "$target"
      return
      ;;
    *)
      mkdir "$work/own"
      command=${commands[$peer]//'{listen}'/"$front:$port"}
      command=${command//'{target}'/"$target"}
      command=${command//'{dir}'/"$work/own"}
      start peer "$peer" bash -c "$command"
      ;;
  esac
  listening peer "$port" $! && return
  say "  $peer does not accept on its port; it said:"
  last_words "$peer"
  return 1
}

# balancer_config PORT: with so many workers and backends, from PORT on, as this load asks for.
balancer_config() {
  local number
  cat <<YAML
workers: $workers
admin: { socket: "$work/admin.sock" }
state: "$work/state"
services:
  load:
    listen: $front:$port
    balance: $balance
    health: { probe: $probe }
    backends:
YAML
  for ((number = 0; number < backends; number++)); do
    printf '      server-%s: "%s:%s"\n' "$number" "$server" $(($1 + number))
  done
}

# translate TARGET: no process at all: the kernel rewrites the addresses of each packet and forwards it.
translate() {
  inside peer sysctl -qw net.ipv4.ip_forward=1
  if ! inside peer nft -f - >"$work/nat.log" 2>&1 <<NFT; then
table ip balancer {
  chain before {
    type nat hook prerouting priority dstnat;
    ip daddr $front tcp dport $port dnat to $1
  }
  chain after {
    type nat hook postrouting priority srcnat;
    ip daddr $server masquerade
  }
}
NFT
    say "  the kernel does not take the rules for its address translation; nft said:"
    last_words nat
    return 1
  fi
  # A connection that has ended is forgotten after a second, as its port is by the ends: else the table fills up.
  inside peer sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=1 net.netfilter.nf_conntrack_tcp_timeout_close=1
}

# Whether this round's peer still works: address translation cannot die.
alive() { [[ $peer == nat || -n $(ip netns pids "$net-peer") ]]; }

# What all the peer's processes have used: CPU time in nanoseconds, resident bytes.
# shellcheck disable=SC2046
peer_cpu() { cpu_of $(ip netns pids "$net-peer"); }
# shellcheck disable=SC2046
peer_resident() { resident_of $(ip netns pids "$net-peer"); }
