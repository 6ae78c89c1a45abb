# shellcheck shell=bash disable=SC2154
# The three namespaces of a measurement and the processes in them. Sourced by compare.sh.

# inside WHERE COMMAND...: runs it in that namespace; WHERE is client, peer or server.
inside() {
  local where=$1 cpus=$load_cpus
  shift
  if [[ $where == peer ]]; then cpus=$peer_cpus; fi
  # taskset only where it is asked for: a balancer that pins its workers must see the machine as it is.
  ip netns exec "$net-$where" ${cpus:+taskset -c "$cpus"} "$@"
}

# start WHERE NAME COMMAND...: the same in the background, its output in NAME.log.
start() {
  local where=$1 name=$2
  shift 2
  inside "$where" "$@" >"$work/$name.log" 2>&1 </dev/null &
  disown
}

# drive COMMAND...: runs a client to its end, its output in client.log; an interrupt does not wait for it.
drive() {
  inside client timeout $((seconds * 3 + 30)) "$@" >"$work/client.log" 2>&1 </dev/null &
  wait $! && return
  say "  $1 failed; it said:"
  last_words client
  return 1
}

# rest SECONDS: an interrupt does not wait for it.
rest() {
  sleep "$1" &
  wait $!
}

# last_words NAME: the end of what the process NAME said.
last_words() { tail -n 5 "$work/$1.log" | sed 's/^/    /' >&2; }

net_up() {
  local where
  for where in client peer server; do
    ip netns add "$net-$where"
    ip -n "$net-$where" link set lo up
    # Ports of closed connections come free after a second: new connections never run out of them.
    inside "$where" sysctl -qw net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='1024 65535' \
      net.core.somaxconn=4096 net.ipv4.tcp_max_syn_backlog=8192
  done
  join client to-peer "$client" peer to-client "$front"
  join server to-peer "$server" peer to-server "$back"
}

# join WHERE DEVICE ADDRESS WHERE DEVICE ADDRESS: a veth pair that never shows in the machine's own namespace.
join() {
  ip link add "$2" netns "$net-$1" type veth peer name "$5" netns "$net-$4"
  while (($#)); do
    ip -n "$net-$1" address add "$3/24" dev "$2"
    ip -n "$net-$1" link set "$2" up
    shift 3
  done
}

# Without segmentation and receive offloads a packet is what a wire carries: one MTU.
offloads_off() {
  local end
  for end in client/to-peer peer/to-client peer/to-server server/to-peer; do
    inside "${end%/*}" ethtool -K "${end#*/}" tso off gso off gro off >/dev/null
  done
}

net_down() {
  local where pids
  for where in client peer server; do
    [[ -e /run/netns/$net-$where ]] || continue
    # Only what this script started can be in its namespaces.
    while mapfile -t pids < <(ip netns pids "$net-$where") && ((${#pids[@]})); do
      kill -KILL "${pids[@]}" 2>/dev/null || true
      sleep 0.05
    done
    ip netns del "$net-$where"
  done
}

# listening WHERE PORT [PID]: waits until it accepts there, without a connection that would disturb what is measured; no
# longer than PID lives.
listening() {
  local deadline=$((SECONDS + 10))
  until [[ -n $(ip netns exec "$net-$1" ss -Hltn "sport = :$2") ]]; do
    if ((SECONDS >= deadline)) || [[ -n ${3-} && ! -e /proc/${3-} ]]; then return 1; fi
    sleep 0.05
  done
}
