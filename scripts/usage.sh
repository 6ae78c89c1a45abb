# shellcheck shell=bash
# What processes have used. Sourced by load.sh and compare.sh.

# Where a comma stands before decimals, awk and bash read each other's figures wrong.
export LC_ALL=C.UTF-8

# writable FILE: what a long measurement has found must not be lost at its end. Leaves nothing behind.
writable() {
  if [[ -e $1 ]]; then
    [[ -w $1 && ! -d $1 ]] || die "cannot write $1"
  else
    { : >"$1"; } 2>/dev/null || die "cannot write $1: is there a directory $(dirname "$1") that you may write to?"
    rm -f "$1"
  fi
}

# processor: its name; not every one has one in cpuinfo.
processor() {
  sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | grep . || tr -d '\0' 2>/dev/null </proc/device-tree/model || uname -m
}

# calc EXPRESSION: its value, to nine digits.
calc() { awk "BEGIN { printf \"%.9g\", $1 }"; }

# cpu_of PID...: their CPU time in nanoseconds. The scheduler's figure of each thread is exact but forgets threads that have
# ended; the process's own remembers them, in ticks of 10 ms. The larger one of a process is right. Children that have ended
# and were waited for are in their parent's count: some balancers have a process for each connection.
cpu_of() {
  local pid
  for pid in "$@"; do
    awk -v hz="$(getconf CLK_TCK)" '
      FILENAME ~ /stat$/ && FILENAME !~ /schedstat$/ { sub(/.*\) /, ""); ticks = $12 + $13; ended = $14 + $15; next }
      { ns += $1 }
      END { whole = ticks * 1e9 / hz; printf "%.0f\n", (ns > whole ? ns : whole) + ended * 1e9 / hz }
    ' "/proc/$pid/stat" "/proc/$pid"/task/*/schedstat
  done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# resident_of PID...: their resident bytes; counted page by page, where VmRSS may be off by some hundred.
resident_of() {
  local pid
  for pid in "$@"; do
    awk '$1 == "Rss:" { print $2 * 1024 }' "/proc/$pid/smaps_rollup"
  done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# machine_cpu: the CPU time that the whole machine has spent on anything, interrupts included, in nanoseconds: proc_stat(5).
machine_cpu() {
  awk -v hz="$(getconf CLK_TCK)" '$1 == "cpu" { printf "%.0f\n", ($2 + $3 + $4 + $7 + $8) * 1e9 / hz }' /proc/stat
}
