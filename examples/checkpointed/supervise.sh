#!/bin/sh
# Runs a program, and again whenever it fails, until it succeeds. Each time it goes on from its newest
# snapshot.
#
#   supervise.sh PROGRAM [ARGUMENT...]
#
# Each process of a program has a supervisor of its own. When one process fails the others end as well, since
# `timely_statefun::execute` sees that it is gone, and all come back and wait for each other.
#
# Between two runs it waits, at first for WAIT_S_FIRST seconds (1) and then twice as long each time, at most
# WAIT_S_MAX (60). After FAILURES_MAX failures in a row (8) it gives up, and says what the last one was. A run
# of WELL_S seconds (300) went well: what fails after it is the first failure again. A program that ends with
# status 2 was called wrongly, which no other run makes better.
set -u

[ $# -gt 0 ] || {
    echo 'supervise: which program? supervise.sh PROGRAM [ARGUMENT...]' >&2
    exit 2
}
wait_s_first=${WAIT_S_FIRST:-1} wait_s_max=${WAIT_S_MAX:-60}
failures_max=${FAILURES_MAX:-8} well_s=${WELL_S:-300}

state=$(mktemp -d) || exit 1
child='' stopped=''
trap 'rm -rf "$state"' EXIT
# Whoever ends this ends the program, and wants no other.
trap 'stopped=1; end' INT TERM HUP

# Asks the program to end, more than once: one that is just being started may miss it.
end() {
    [ -z "$child" ] || while kill -TERM "$child" 2>/dev/null; do sleep 1; done &
}

say() {
    printf 'supervise: %s\n' "$*" >&2
}

# Runs the program once: passes on what it writes, and notes the last line of its errors.
run() {
    : >"$state/last"
    mkfifo "$state/errors"
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\n' "$line" >&2
        printf '%s\n' "$line" >"$state/last"
    done <"$state/errors" &
    reader=$!
    "$@" 2>"$state/errors" &
    child=$!
    [ -z "$stopped" ] || end
    say "process $child runs"
    wait "$child"
    status=$?
    # A signal interrupts the wait, and the program ends a little later.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    child=''
    wait "$reader"
    rm -f "$state/errors"
}

failures=0 wait_s=$wait_s_first
while :; do
    began=$(date +%s)
    run "$@"
    [ "$status" -ne 0 ] || exit 0
    why="status $status: $(cat "$state/last")"
    if [ -n "$stopped" ]; then
        say "stopped, $why"
        exit "$status"
    fi
    if [ "$status" -eq 2 ]; then
        say "it was called wrongly, $why"
        exit 2
    fi
    if [ $(($(date +%s) - began)) -ge "$well_s" ]; then
        failures=0 wait_s=$wait_s_first
    fi
    failures=$((failures + 1))
    if [ "$failures" -ge "$failures_max" ]; then
        say "gave up after $failures failures in a row, the last one with $why"
        exit "$status"
    fi
    say "failure $failures, $why; again in $wait_s s"
    sleep "$wait_s" &
    child=$!
    wait "$child"
    child=''
    [ -z "$stopped" ] || exit "$status"
    wait_s=$((wait_s * 2))
    [ "$wait_s" -le "$wait_s_max" ] || wait_s=$wait_s_max
done
