#!/usr/bin/env bash
# Runs the behaviours again and again on a machine that is kept busy, and says what failed how often.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/repeat.sh [--runs N] [--load N] [--kernel-features] [FILTER...]

Runs the behaviours N times beside N busy loops: a test that fails then by chance fails some day on somebody's machine. After each
run a line says how long it took and what failed, at the end which test failed how often and where its messages are, and which
tests took longest. FILTERs select tests by a part of their name. Exits with 0 only if nothing has failed.

  --runs N            how often                                    [20]
  --load N            busy loops, each of which wants a core       [2]
  --kernel-features   every second run without the optional kernel features (BALANCER_DISABLE=all)
TEXT
}

runs=20 load=2 features='' filters=()
while (($#)); do
  case $1 in
    --runs | --load)
      [[ ${2:-} =~ ^[0-9]+$ ]] || { say "${0##*/}: $1 needs a number"; exit 2; }
      if [[ $1 == --runs ]]; then runs=$2; else load=$2; fi
      shift
      ;;
    --kernel-features) features=yes ;;
    --help | -h) usage; exit 0 ;;
    -*) say "${0##*/}: unknown option '$1'; try: scripts/repeat.sh --help"; exit 2 ;;
    *) filters+=("$1") ;;
  esac
  shift
done

program=$(cargo test --locked --no-run --message-format=json --test behaviours |
  sed -n 's/.*"name":"behaviours".*"executable":"\([^"]*\)".*/\1/p')
[[ -x $program ]] || die "the behaviours do not build: cargo test --no-run --test behaviours"
kept=$(mktemp -d "${TMPDIR:-/tmp}/balancer-repeat.XXXXXX")
loops=()
trap '((${#loops[@]} == 0)) || kill "${loops[@]}" 2>/dev/null || true' EXIT
for ((number = 0; number < load; number++)); do
  while :; do :; done &
  loops+=($!)
done

# As .cargo/config.toml has it: whoever waits for a turn needs a thread.
export RUST_TEST_THREADS=512 BALANCER_TEST_TIMES=$kept/times
for ((run = 1; run <= runs; run++)); do
  start=$SECONDS without='' output=$kept/$run
  if [[ -n $features ]] && ((run % 2 == 0)); then without=all; fi
  BALANCER_DISABLE=$without "$program" "${filters[@]}" >"$output" 2>&1 </dev/null || true
  result=$(sed -n 's/^test result: //p' "$output")
  say "run $run of $runs${without:+, without optional kernel features}, $((SECONDS - start)) s: ${result:-NO RESULT; see $output}"
  if [[ -z $result ]]; then echo "no result" >>"$kept/failed"; fi
  sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output" | tee -a "$kept/failed" >&2
done

say "== slowest, on average: seconds, how it has the machine"
awk -F'\t' '{ sum[$2 "\t" $3] += $1; count[$2 "\t" $3]++ } END { for (test in sum) printf "%7.2f\t%s\n", sum[test] / count[test], test }' \
  "$kept/times" | sort -rn | head -n 15 >&2
if [[ -s $kept/failed ]]; then
  say "== failed: how often in $runs runs; the messages are in $kept"
  sort "$kept/failed" | uniq -c | sort -rn
  exit 1
fi
rm -rf "$kept"
echo "nothing has failed in $runs runs"
