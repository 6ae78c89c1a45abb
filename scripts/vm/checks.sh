#!/usr/bin/env bash
# Runs inside the virtual machine of scripts/vm-test.sh: the package under a real systemd. One line a check.
set -uo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
cd /vm || exit

say() { printf 'VM %s\n' "$*"; }
# check NAME COMMAND...: one line, and what the command said where it failed.
check() {
  local name=$1 start=$SECONDS said=said.$BASHPID pid guard code=0
  shift
  "$@" >"$said" 2>&1 &
  pid=$!
  (sleep 240; kill "$pid" 2>/dev/null) &
  guard=$!
  wait "$pid" || code=$?
  kill "$guard" 2>/dev/null
  if ((code == 0)); then
    say "PASS $name ($((SECONDS - start)) s)"
  else
    say "FAIL $name"
    sed 's/^/VM   /' "$said"
    journalctl -u balancer --no-pager -n 15 2>&1 | sed 's/^/VM   /'
  fi
}
property() { systemctl show balancer --property "$1" --value; }
served() { [[ $(curl -s --max-time 10 "http://127.0.0.1:${1:-80}/") == served ]]; }
# until_true SECONDS COMMAND...
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do ((SECONDS < end)) || return 1; sleep 0.2; done
}
configure() {
  cat >/etc/balancer/balancer.yaml <<TEXT
drain: 4s
access_log: /var/log/balancer/access.log
admin: { http: 127.0.0.1:9900 }
services:
  web:
    listen: [0.0.0.0:80${2:-}]
    backends: { web-01: 127.0.0.1:8081, web-02: 127.0.0.1:8082${1:-} }
TEXT
}
generation() { balancer status --json | sed -n 's/.*"generation": \([0-9]*\).*/\1/p'; }

list() {
  local changing=() path
  for path in /vm /proc /sys /run /tmp /var/cache /var/log /var/lib/{dpkg,systemd,nginx} '/etc/*-' /etc/.pwd.lock; do
    changing+=(-o -path "$path")
  done
  find / -xdev \( "${changing[@]:1}" \) -prune -o -print | sort
  cat /etc/passwd /etc/group
  find /var/log -name '*balancer*'
}

installs() {
  dpkg -i first.deb && balancer check && ! systemctl is-active --quiet balancer && getent passwd balancer
}

starts() {
  configure
  systemctl enable --now balancer && served && [[ $(property Type) == notify && $(property SubState) == running ]] &&
    [[ $(property StatusText) == "1 services, "*" of 2 backends up; generation 1" ]] &&
    [[ $(ps -o user= -p "$(property MainPID)") == balancer ]]
}

# Compared as text: under pipefail, a `grep -q` that has seen enough makes a failure of whoever still writes to it.
holds_a_pipe() { [[ $(curl -s http://127.0.0.1:9900/metrics) == *$'\n'"balancer_pipes "[1-9]* ]]; }

moves_bulk() {
  local transfer
  curl -s --max-time 120 http://127.0.0.1/bulk >bulk &
  transfer=$!
  # While it flows: a spare pipe is given back soon after.
  until_true 60 holds_a_pipe && wait "$transfer" && [[ $(stat -c %s bulk) == 67108864 ]]
}

reloads() {
  local pid
  pid=$(property MainPID)
  configure ', web-03: 127.0.0.1:8081'
  systemctl reload balancer && [[ $(generation) == 2 && $(property MainPID) == "$pid" ]] && served
}

refuses_a_broken_file() {
  local before code=0
  before=$(generation)
  printf 'servcies:\n' >/etc/balancer/balancer.yaml
  systemctl reload balancer && code=1
  [[ $(generation) == "$before" && $(property ActiveState) == active ]] && served || code=1
  # What comes next needs a service that can be started again.
  configure ', web-03: 127.0.0.1:8081'
  systemctl reload balancer && return "$code"
}

writes_the_access_log() {
  served && until_true 5 grep -q 'service=web .*end=' /var/log/balancer/access.log || return 1
  mv /var/log/balancer/access.log /var/log/balancer/access.log.1
  systemctl kill --signal=USR1 balancer && until_true 5 test -e /var/log/balancer/access.log && served &&
    until_true 5 grep -q 'service=web' /var/log/balancer/access.log
}

is_started_again_after_a_sudden_death() {
  local pid
  pid=$(property MainPID)
  kill -KILL "$pid"
  until_true 20 served && [[ $(property MainPID) != "$pid" && $(property NRestarts) == 1 ]]
}

watchdog_notices_a_worker_that_hangs() {
  local pid thread restarts
  pid=$(property MainPID) restarts=$(property NRestarts)
  thread=$(grep -l worker-1 "/proc/$pid/task/"*/comm | cut -d/ -f5)
  python3 hold.py "$thread" &
  until_true 60 bash -c "[[ \$(systemctl show balancer --property NRestarts --value) -gt $restarts ]]" || return 1
  until_true 20 served && [[ $(property MainPID) != "$pid" ]] &&
    [[ $(journalctl -u balancer --no-pager) == *'makes no progress'* ]]
}

package_upgrade_costs_no_connection() {
  local before load
  until_true 20 served || return 1
  before=$(property MainPID)
  wrk -t1 -c4 -d10m -H 'Connection: close' http://127.0.0.1:80/ >load.txt &
  load=$!
  sleep 3
  dpkg -i newer.deb || return 1
  # Some load after it, too, however long it took. Then wrk says what it has seen.
  sleep 3
  kill -INT "$load" && wait "$load"
  cat load.txt
  [[ $(dpkg-query -W -f '${Version}' balancer) == *+newer ]] && ! grep -Eq 'Socket errors|Non-2xx' load.txt &&
    grep -Eq ' [1-9][0-9]* requests in' load.txt &&
    [[ $(property MainPID) != "$before" && $(property ActiveState) == active ]] && served &&
    until_true 30 bash -c "! kill -0 $before" && [[ $(balancer status --json | grep -c '"refused": 0') -ge 1 ]]
}

stops_with_sessions_open() {
  local start
  exec 9<>/dev/tcp/127.0.0.1/80
  until_true 5 bash -c "balancer status --json | grep -q '\"sessions\": 1'" || return 1
  start=$SECONDS
  systemctl stop balancer || return 1
  exec 9<&-
  ((SECONDS - start >= 3 && SECONDS - start < 15)) && [[ $(property Result) == success && ! -e /run/balancer/admin.sock ]]
}

socket_activation() {
  sed 's/0.0.0.0:80/0.0.0.0:88/' /usr/share/doc/balancer/examples/balancer.socket >/etc/systemd/system/balancer.socket
  configure '' ', 0.0.0.0:88'
  systemctl daemon-reload && systemctl start balancer.socket && ! systemctl is-active --quiet balancer || return 1
  served 88 && systemctl is-active --quiet balancer && served 80 || return 1
  systemctl stop balancer.socket balancer && rm /etc/systemd/system/balancer.socket && systemctl daemon-reload
}

purge_leaves_nothing() {
  systemctl start balancer && dpkg -P balancer || return 1
  list >after
  ! systemctl is-active --quiet balancer && ! pgrep -x balancer && diff before after
}

behaviours() {
  [[ -x tests/behaviours ]] || { echo "the tests were not built"; return 1; }
  # What counts on a clock is for a real machine; what passes bytes, ends and resets is the same here.
  timeout 500 tests/behaviours --test-threads 1 relay:: ends:: resets:: balancing:: families:: connecting:: \
    >behaviours.txt 2>&1
  local code=$?
  grep '^test result' behaviours.txt | sed 's/^/VM   /'
  ((code == 0)) || grep -E -A 2 'panicked|FAILED' behaviours.txt
  return "$code"
}

cat >hold.py <<'PYTHON'
import ctypes, sys, time
trace = ctypes.CDLL(None, use_errno=True).ptrace
trace.argtypes = [ctypes.c_long] * 4
assert trace(0x4206, int(sys.argv[1]), 0, 0) == 0, ctypes.get_errno()  # PTRACE_SEIZE
assert trace(0x4207, int(sys.argv[1]), 0, 0) == 0, ctypes.get_errno()  # PTRACE_INTERRUPT
time.sleep(20)
PYTHON
mkdir -p www
head -c 67108864 /dev/zero >www/bulk
cat >nginx.conf <<'TEXT'
pid /vm/nginx.pid; error_log /vm/nginx.log error;
events { worker_connections 1024; }
http {
  access_log off;
  server { listen 127.0.0.1:8081 backlog=1024; listen 127.0.0.1:8082 backlog=1024; root /vm/www; location = / { return 200 "served"; } }
}
TEXT
nginx -c /vm/nginx.conf

if [[ -e tests/program ]]; then
  # The behaviours look for it where it was built. Before the list, as it is not the package's.
  program=$(cat tests/program)
  mkdir -p "${program%/*}" && cp tests/balancer "$program"
fi

say "$(uname -sr), $(systemctl --version | head -n1)"
list >before
check "the package installs and waits to be configured" installs
check "start: READY is waited for, port 80 is served without root" starts
check "bulk is spliced under the unit's restrictions" moves_bulk
check "systemctl reload applies a change in the same process" reloads
check "systemctl reload fails on a broken file, which changes nothing" refuses_a_broken_file
check "the access log is written and reopened" writes_the_access_log
check "a killed process is started again" is_started_again_after_a_sudden_death
# The watchdog takes its time, and these have balancers of their own.
check "behaviours of the forwarding core on this kernel" behaviours &
behaviours=$!
check "the watchdog notices a worker that hangs" watchdog_notices_a_worker_that_hangs
wait "$behaviours"
check "an upgrade of the package under load costs no connection" package_upgrade_costs_no_connection
check "stop: open sessions get their drain, then the service has stopped" stops_with_sessions_open
check "a socket unit starts the service at its first client" socket_activation
check "a purge leaves nothing behind" purge_leaves_nothing
say "END"
