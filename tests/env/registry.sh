#!/bin/sh
# A real schema registry for tests: Apicurio Registry from its archive on Maven Central, on loopback alone, with what it holds in memory. It has the interface of Confluent's
# registry below /apis/ccompat/v7.
#
#   tests/env/registry.sh install                   fetches what it runs from where it is missing, checks it, makes the archive of its classes, and prints its directory
#   tests/env/registry.sh run PORT DIRECTORY        runs a registry at http://127.0.0.1:PORT/apis/ccompat/v7 with its log in DIRECTORY, until its standard input ends: so it
#                                                   ends with whoever started it, however that one ended
#
# Needs Java 17 or later, and Maven to fetch the archive (on Debian: apt-get install default-jre-headless maven).
set -eu
# shellcheck source=tests/env/common.sh
. "$(dirname "$0")/common.sh"

version=2.6.13.Final
sum=3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
tools=${LOADLINE_TEST_TOOLS:-$(cd "$(dirname "$0")/../.." && pwd)/target/test-tools}
place=$tools/apicurio-registry-$version
archive=apicurio-registry-app-$version-all.tar.gz

fail() { echo "registry.sh: $*" >&2 && exit 1; }
needs_java "the registry"

fetch() {
    if [ -f "$place/complete" ]; then return; fi
    command -v mvn >/dev/null 2>&1 || fail "there is no mvn, which fetches Apicurio Registry from Maven Central: install it (on Debian: apt-get install maven)"
    mkdir -p "$tools"
    one_at_a_time "$tools/registry.lock"
    if [ -f "$place/complete" ]; then exec 9>&- && return; fi
    echo "registry.sh: fetching Apicurio Registry $version from Maven Central into $tools" >&2
    work=$(mktemp -d "$tools/registry.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
        -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$work" >&2 ||
        fail "Maven could not fetch Apicurio Registry $version (see above); try again, or unpack $archive into $place and create $place/complete"
    echo "$sum  $work/$archive" | sha256sum --check --status ||
        fail "$archive is not the file that these tests were written with (its SHA-256 is $(sha256sum "$work/$archive" | cut -d ' ' -f 1)): delete it below ~/.m2/repository/io/apicurio and try again"
    mkdir "$work/unpacked"
    tar -xzf "$work/$archive" -C "$work/unpacked"
    touch "$work/unpacked/complete"
    # What stands there is not complete: to move into it would nest them.
    rm -rf "$place"
    mv "$work/unpacked" "$place"
    rm -rf "$work"
    trap - EXIT
    exec 9>&-
}

# Small and quick to start.
flags="-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dquarkus.http.host=127.0.0.1"
program=$place/apicurio-registry-app-$version-runner.jar

# Fetches what is missing, and runs a registry once for the archive of its classes: on a port below those that tests take. Sets `archived` to java's flag for it, where there is one.
install() {
    archived=''
    fetch
    file=$(archive_file "$place/registry")
    if [ ! -f "$file" ]; then
        # shellcheck disable=SC2086
        make_archive "$file" "Listening on" '' $flags -Dquarkus.http.port=$((6000 + $$ % 1000)) -jar "$program"
    fi
    if [ -s "$file" ]; then archived=-XX:SharedArchiveFile=$file; fi
}

run() {
    port=$1 directory=$2
    mkdir -p "$directory"
    # shellcheck disable=SC2086
    java $flags ${archived:+"$archived"} -Dquarkus.http.port="$port" -jar "$program" >>"$directory/registry.log" 2>&1 &
    until_left $!
}

case ${1:-} in
install)
    install
    echo "$place"
    ;;
run)
    [ $# -eq 3 ] || fail "run PORT DIRECTORY"
    shift
    install
    run "$@"
    ;;
*) fail "install, or run PORT DIRECTORY" ;;
esac
