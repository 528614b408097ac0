# shellcheck shell=sh
# For what the tests need from elsewhere: one installation at a time; and an end with whoever started it, however that one ended.

# Ctrl-C in a `make` that installs ends what was started for that: a shell that a signal ends does nothing of its EXIT trap by itself.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Waits for whoever installs with the lock $1: tests ask for several at once, and Maven shares what it fetches. It is let go with `exec 9>&-`.
one_at_a_time() {
    exec 9>"$1"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
}

# Ends where no Java runs $1, or one that is too old. Sets `java` to what it says of itself.
needs_java() {
    command -v java >/dev/null 2>&1 || fail "there is no java, which runs $1: install Java 17 or later (on Debian: apt-get install default-jre-headless)"
    java=$(java -version 2>&1) || fail "java does not run: $java"
    found=$(echo "$java" | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${found:-17}" -ge 17 ] || fail "java is version $found here, and $1 needs 17 or later: install one, and let PATH name it first (on Debian: apt-get install default-jre-headless)"
}

# The file with the classes of the server $1 as this Java has them in memory: it starts in less than half the time with them (-XX:SharedArchiveFile), and all works without.
archive_file() { echo "$1-$(echo "$java" | cksum | cut -d ' ' -f 1).jsa"; }

# Makes that file $1, once: runs java with the arguments from $4 on until its log has the words $2, ends it, and removes the directory $3 where one is named. The file is empty where this
# Java makes none. Where it did not come so far, as its port was somebody else's, there is no file, and the next one tries again.
make_archive() {
    file=$1 words=$2 own=$3
    shift 3
    one_at_a_time "$file.lock"
    if [ ! -f "$file" ]; then
        java -XX:ArchiveClassesAtExit="$file.new" "$@" >"$file.log" 2>&1 </dev/null 9>&- &
        first=$!
        trap 'kill "$first" 2>/dev/null || true; wait "$first" 2>/dev/null || true; rm -rf "$own" "$file.new"' EXIT
        waited=0
        while [ "$waited" -lt 3000 ] && kill -0 "$first" 2>/dev/null && ! grep -q "$words" "$file.log"; do
            sleep 0.1
            waited=$((waited + 1))
        done
        kill "$first" 2>/dev/null || true
        wait "$first" 2>/dev/null || true
        trap - EXIT
        if ! grep -q "$words" "$file.log"; then
            echo "$words: that was never said, so the servers start without an archive of their classes; see $file.log" >&2
            rm -f "$file.new"
        else
            mv "$file.new" "$file" 2>/dev/null || : >"$file"
        fi
    fi
    rm -rf "$own"
    exec 9>&-
}

# Runs on until standard input ends, since whoever started this is gone then, or the process $1 has ended; then ends that.
until_left() {
    server=$1 looks=''
    trap 'kill $looks "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
    exec 8<&0
    (
        left=''
        trap 'kill $left 2>/dev/null; exit 0' TERM
        cat <&8 >/dev/null &
        left=$!
        wait "$left"
        kill "$server" 2>/dev/null
    ) &
    looks=$!
    exec 8<&- </dev/null
    wait "$server" 2>/dev/null || true
}
