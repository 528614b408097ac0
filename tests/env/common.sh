# shellcheck shell=sh
# For what the tests need from elsewhere: one installation at a time; and an end with whoever started it, however that one ended.

# Waits for whoever installs with the lock $1: tests ask for several at once, and Maven shares what it fetches. It is let go with `exec 9>&-`.
one_at_a_time() {
    exec 9>"$1"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
}

# Ends where no Java runs $1, or one that is too old.
needs_java() {
    command -v java >/dev/null 2>&1 || fail "there is no java, which runs $1: install Java 17 or later (on Debian: apt-get install default-jre-headless)"
    found=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${found:-17}" -ge 17 ] || fail "java is version $found here, and $1 needs 17 or later: install one, and let PATH name it first (on Debian: apt-get install default-jre-headless)"
}

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
