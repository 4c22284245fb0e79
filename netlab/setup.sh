#!/bin/sh
# Make this machine able to run edgepop: Debian packages, then .venv from a hashed lock.
#
#   netlab/setup.sh system [EXTRA-PACKAGE...]   what the lab needs from the distribution
#   netlab/setup.sh venv runtime|dev            .venv with exactly what .lock/ names
#
# Every step first looks whether it is done; a second run repeats nothing. It asks nothing,
# starts nothing, and stops a service only if the package that brought it was installed here.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $1"; exit "${2:-3}"; }
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else fail "this step needs root: run it as root, or install sudo"; fi
}

PACKAGES="iproute2 bird2 curl python3-venv redis-server"
SERVICES="bird redis-server"

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
running() { command -v systemctl >/dev/null 2>&1 && systemctl is-active --quiet "$1" 2>/dev/null || pidof "$2" >/dev/null 2>&1; }

system() {
    wanted="$PACKAGES $*"
    missing=""
    if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
        for tool in ip bird curl python3 redis-server; do
            command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
        done
        [ -z "$missing" ] && return 0
        fail "this is no Debian or Ubuntu, so nothing is installed for you. Missing programs:$missing.
Install iproute2 (ip), BIRD 2 (bird, birdc), curl, Python 3.11 or newer with venv, and redis-server; then run this again."
    fi
    for package in $wanted; do installed "$package" || missing="$missing $package"; done
    [ -z "$missing" ] && return 0
    say "setup: installing from your distribution:$missing"
    before=""
    for service in $SERVICES; do
        case $service in bird) program=bird package=bird2 ;; *) program=redis-server package=redis-server ;; esac
        if installed "$package" || running "$service" "$program"; then before="$before $service"; fi
    done
    log=$(mktemp)
    # Through env, since sudo drops the environment: a question would wait unseen.
    apt="env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get"
    # shellcheck disable=SC2086 -- a list of package names
    if ! as_root $apt install -y --no-install-recommends $missing >"$log" 2>&1 </dev/null; then
        # Most often the package lists are old or were never fetched.
        if ! { as_root $apt update && as_root $apt install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
            tail -n 15 "$log" >&2
            rm -f "$log"
            fail "apt-get could not install:$missing (its last words are above)"
        fi
    fi
    rm -f "$log"
    for service in $SERVICES; do
        case " $before " in *" $service "*) continue ;; esac
        # Enabled without running is what a package leaves whose port was taken: it would start at the next boot.
        if command -v systemctl >/dev/null 2>&1 &&
            { systemctl is-active --quiet "$service" || systemctl is-enabled --quiet "$service"; } 2>/dev/null; then
            as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
            say "setup: stopped the service $service that its package started; the lab runs its own"
        elif command -v service >/dev/null 2>&1; then
            as_root service "$service" stop >/dev/null 2>&1 || true
            if command -v update-rc.d >/dev/null 2>&1; then
                as_root update-rc.d "$service" disable >/dev/null 2>&1 || true
            fi
        fi
    done
}

python() {
    # The distribution's own first: it is built with optimisation (0.80 of the CPU of one that was not) and
    # every uid can read it.
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    fail "Python 3.11 or newer is needed; this machine has $(python3 --version 2>&1 || echo none)"
}

stamp_of() { { cat "$1"; sed '/^\[tool\./,$d' pyproject.toml; } | sha256sum | cut -d' ' -f1; }

venv() {
    which=$1
    lock=.lock/$which.txt
    [ -f "$lock" ] || fail "no lock $lock; write runtime or dev" 2
    stamp=$(stamp_of "$lock")
    # The dev lock holds everything of the runtime lock: it serves both.
    dev=$(stamp_of .lock/dev.txt)
    have=$(cat .venv/.lock 2>/dev/null || true)
    if [ "$have" = "$stamp" ] || [ "$have" = "$dev" ]; then
        .venv/bin/python -c '' 2>/dev/null && return 0
    fi
    interpreter=$(python)
    # A person sees progress; a log sees errors only.
    quiet=-qq
    [ -t 2 ] && quiet=""
    rm -f .venv/.lock
    say "setup: making .venv ($which, from $lock)"
    if command -v uv >/dev/null 2>&1; then
        [ -x .venv/bin/python ] || uv venv $quiet --python "$interpreter" .venv
        uv pip install $quiet --compile-bytecode --python .venv/bin/python --require-hashes -r "$lock" ||
            fail "the packages of $lock could not be installed (see above)" 1
        uv pip install $quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
            fail "edgepop itself could not be installed into .venv (see above)" 1
    else
        [ -x .venv/bin/pip ] || "$interpreter" -m venv .venv ||
            fail "$interpreter has no venv; install python3-venv"
        .venv/bin/python -m pip install $quiet --disable-pip-version-check --require-hashes -r "$lock" ||
            fail "the packages of $lock could not be installed (see above)" 1
        .venv/bin/python -m pip install $quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ||
            fail "edgepop itself could not be installed into .venv (see above)" 1
    fi
    # Children of a node run under uids that can't write here: what is not compiled now is compiled at each start.
    .venv/bin/python -m compileall -q edge netlab models || true
    printf '%s\n' "$stamp" >.venv/.lock
}

case ${1:-} in
    system) shift; system "$@" ;;
    venv) venv "${2:-runtime}" ;;
    *) fail "write: netlab/setup.sh system, or netlab/setup.sh venv runtime|dev" 2 ;;
esac
