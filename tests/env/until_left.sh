# shellcheck shell=sh
# For the servers of the tests: ends with whoever started it, however that one ended.

# Runs on until standard input ends, since whoever started this is gone then, or the process $1 has ended; then ends that.
until_left() {
    server=$1
    trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
    trap 'exit 143' TERM INT
    while kill -0 "$server" 2>/dev/null; do
        waited=0
        timeout 1 cat >/dev/null || waited=$?
        [ "$waited" -eq 124 ] || break
    done
}
