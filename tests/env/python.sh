#!/bin/sh
# A Python with the clients of others, for tests: a virtual environment with the packages of tests/env/python.txt, from PyPI.
#
#   tests/env/python.sh install                     makes it where it is missing, or where the list is another one, and prints the interpreter's path
#
# Needs Python 3.9 or later with venv (on Debian: apt-get install python3-venv).
set -eu
# shellcheck source=tests/env/common.sh
. "$(dirname "$0")/common.sh"

here=$(cd "$(dirname "$0")" && pwd)
tools=${LOADLINE_TEST_TOOLS:-$here/../../target/test-tools}
list=$here/python.txt

fail() { echo "python.sh: $*" >&2 && exit 1; }
[ "${1:-}" = install ] || fail "install is all that it does"
command -v python3 >/dev/null 2>&1 || fail "there is no python3: install Python 3.9 or later (on Debian: apt-get install python3-venv)"

mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
# A list that changed makes another one.
place=$tools/python-$(cksum <"$list" | cut -d ' ' -f 1)
if [ ! -f "$place/complete" ]; then
    # An environment has its own path within, so it is made where it stays.
    one_at_a_time "$tools/python.lock"
    if [ ! -f "$place/complete" ]; then
        echo "python.sh: making a Python environment with the packages of $list, from PyPI" >&2
        rm -rf "$place"
        python3 -m venv "$place" >&2 || fail "the environment could not be made; on Debian: apt-get install python3-venv"
        "$place/bin/pip" install --quiet --disable-pip-version-check --no-input --only-binary :all: --requirement "$list" >&2 ||
            fail "pip could not fetch the packages of $list (see above); try again, or run: $place/bin/pip install --requirement $list && touch $place/complete"
        touch "$place/complete"
    fi
fi
echo "$place/bin/python"
