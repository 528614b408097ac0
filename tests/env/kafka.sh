#!/bin/sh
# A real Kafka broker for tests, from its jars on Maven Central: one node, KRaft, on loopback alone.
#
#   tests/env/kafka.sh install                      fetches the jars where they are missing, makes the archive of their classes, and prints their directory
#   tests/env/kafka.sh run PORT OTHER_PORT DIRECTORY [NAME=VALUE...]
#       runs a broker at 127.0.0.1:PORT (its controller at OTHER_PORT) with its data and its log below DIRECTORY, until its standard
#       input ends: so it ends with whoever started it, however that one ended. NAME=VALUE are settings of the broker, and
#       add-scram=SCRAM-SHA-512=[name=…,password=…] is a user that it knows from the start.
#   tests/env/kafka.sh tool CLASS ARGUMENTS...      runs one of Kafka's own tools, as its scripts in bin/ do, in half their time
#
# Needs Java 17 or later, and Maven to fetch the jars (on Debian: apt-get install default-jre-headless maven).
set -eu
# shellcheck source=tests/env/common.sh
. "$(dirname "$0")/common.sh"

version=4.1.0
tools=${LOADLINE_TEST_TOOLS:-$(cd "$(dirname "$0")/../.." && pwd)/target/test-tools}
jars=$tools/kafka-$version

fail() { echo "kafka.sh: $*" >&2 && exit 1; }
needs_java "the broker"

fetch() {
    if [ -f "$jars/complete" ]; then return; fi
    command -v mvn >/dev/null 2>&1 || fail "there is no mvn, which fetches Kafka from Maven Central: install it (on Debian: apt-get install maven)"
    mkdir -p "$tools"
    one_at_a_time "$tools/kafka.lock"
    if [ -f "$jars/complete" ]; then exec 9>&- && return; fi
    echo "kafka.sh: fetching Kafka $version from Maven Central into $tools" >&2
    work=$(mktemp -d "$tools/kafka.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.loadline</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    mvn --quiet --batch-mode --file "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/jars" >&2 ||
        fail "Maven could not fetch Kafka $version (see above); try again, or put its jars into $jars and create $jars/complete"
    touch "$work/jars/complete"
    # What stands there is not complete: to move into it would nest them.
    rm -rf "$jars"
    mv "$work/jars" "$jars"
    rm -rf "$work"
    trap - EXIT
    exec 9>&-
}

# The settings of the broker at $port with its data below $directory.
properties() {
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$directory/data
auto.create.topics.enable=false
# One node holds everything.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
# A test is not to wait for members that never come, nor for a broker that was killed to be missed before it may come back.
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
PROPERTIES
}

# Small and quick to start.
flags="-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"

# Makes an empty directory of a broker, with further arguments.
format() {
    # shellcheck disable=SC2086
    java $flags ${archived:+"$archived"} -cp "$jars/*" kafka.tools.StorageTool format --cluster-id bG9hZGxpbmUtdGVzdHMtMQ --config "$directory/broker.properties" "$@" >"$directory/format.log" 2>&1 ||
        fail "the broker's directory could not be made: $(tail -n 3 "$directory/format.log")"
}

# Fetches what is missing, and runs a broker once for the archive of its classes: on ports below those that tests take. Sets `archived` to java's flag for it, where there is one.
install() {
    archived=''
    fetch
    file=$(archive_file "$jars/broker")
    if [ ! -f "$file" ]; then
        port=$((6000 + $$ % 1000)) directory=$(mktemp -d "$tools/first.XXXXXX")
        controller=$((port + 1000))
        trap 'rm -rf "$directory"' EXIT
        properties >"$directory/broker.properties"
        format
        # shellcheck disable=SC2086
        make_archive "$file" "Kafka Server started" "$directory" $flags -cp "$jars/*" kafka.Kafka "$directory/broker.properties"
        trap - EXIT
    fi
    if [ -s "$file" ]; then archived=-XX:SharedArchiveFile=$file; fi
}

run() {
    port=$1 controller=$2 directory=$3
    shift 3
    mkdir -p "$directory"
    if [ ! -f "$directory/broker.properties" ]; then
        properties >"$directory/broker.properties"
        for setting in "$@"; do
            shift
            case $setting in
            add-scram=*) set -- "$@" --add-scram "${setting#add-scram=}" ;;
            *) echo "$setting" >>"$directory/broker.properties" ;;
            esac
        done
        format "$@"
    fi
    # shellcheck disable=SC2086
    java $flags ${archived:+"$archived"} -cp "$jars/*" kafka.Kafka "$directory/broker.properties" >>"$directory/broker.log" 2>&1 &
    until_left $!
}

case ${1:-} in
install)
    install
    echo "$jars"
    ;;
run)
    [ $# -ge 4 ] || fail "run PORT OTHER_PORT DIRECTORY [NAME=VALUE...]"
    shift
    install
    run "$@"
    ;;
tool)
    [ $# -ge 2 ] || fail "tool CLASS ARGUMENTS..."
    shift
    install
    # What it prints is read: a virtual machine that has something to say of the archive would say it there.
    # shellcheck disable=SC2086
    exec java -Xlog:disable $flags ${archived:+"$archived"} -cp "$jars/*" "$@"
    ;;
*) fail "install, run PORT OTHER_PORT DIRECTORY [NAME=VALUE...], or tool CLASS ARGUMENTS..." ;;
esac
