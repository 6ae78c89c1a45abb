# shellcheck shell=bash
# Says what runs and, at the end, how long each of it took. Sourced, not run.

steps=()

# timed NAME COMMAND...: runs it under its name; exits as it does.
timed() {
  local name=$1 start=$SECONDS status=0
  shift
  say "== $name"
  "$@" || status=$?
  took "$name" "$start"
  return "$status"
}

# took NAME START: notes what has taken since START, a value of SECONDS.
took() { steps+=("$(printf '%5d s  %s' "$((SECONDS - $2))" "$1")"); }

# say_times: one line for each step, in their order.
say_times() {
  say "== how long it took"
  for step in "${steps[@]}"; do say "$step"; done
}
