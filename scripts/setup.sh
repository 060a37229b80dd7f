#!/usr/bin/env bash
# Prepares .venv and, on Debian-like systems, the packages of a virtual screen. Called by make.
#
# When nothing has changed since the last time it returns at once, without pip, apt or network.
# PYTHON=/path/to/python chooses the interpreter; otherwise one of 3.11 to 3.13 is looked for.

set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Everything that decides what is in .venv. The folder counts too: an environment that was moved is broken.
fingerprint() {
    { pwd; cat pyproject.toml constraints.txt scripts/setup.sh; } | cksum
}

# python3 comes first: it is the one the user has chosen, and on shims the numbered ones may be hollow.
find_python() {
    local candidate candidates=(python3 python python3.13 python3.12 python3.11)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# Root needs no sudo; without a password we must not ask for one.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# Installs what is missing of the named Debian packages, or says in one sentence what to install.
debian_packages() {
    local name missing=()
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if may_install; then
        say "Installing ${missing[*]}"
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null &&
            return 0
    fi
    say "These packages are missing, and we may not install them. Run: sudo apt-get install ${missing[*]}"
    return 1
}

# Qt's libraries for X, and a virtual screen where there is no real one.
prepare_screen() {
    [ "$(uname -s)" = Linux ] || return 0
    local packages=(
        libegl1 libgl1 libgl1-mesa-dri libdbus-1-3 libxkbcommon-x11-0
        libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0
    )
    [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || packages+=(xvfb)
    if command -v apt-get >/dev/null; then
        debian_packages "${packages[@]}"
    elif [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && ! command -v Xvfb >/dev/null; then
        say "There is no screen. Install Xvfb and Qt's xcb libraries with your system's package manager to run the tests of the widgets."
        return 1
    fi
}

create_environment() {
    local python
    python=$(find_python) ||
        fail "${PYTHON:-This computer} has no Python 3.11, 3.12 or 3.13. Install one, or name it: make ${MAKE_GOAL:-test} PYTHON=/path/to/python3"
    if ! "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        # Debian ships Python without it; every other Python has it.
        if ! { command -v apt-get >/dev/null && debian_packages python3-venv; }; then
            fail "$python cannot create environments, because its module ensurepip is missing. Install it, or name another: make ${MAKE_GOAL:-test} PYTHON=/path/to/python3"
        fi
    fi
    say "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

environment_python() {
    local candidate
    for candidate in .venv/bin/python .venv/Scripts/python.exe; do
        if [ -x "$candidate" ] && "$candidate" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

install_packages() {
    local python=$1 torch
    torch=$(grep '^torch==' constraints.txt)
    say "Installing into .venv, which takes a few minutes the first time"
    # --group needs pip 25.1.
    "$python" -m pip install --quiet --upgrade "pip>=25.1"
    # torch alone and first, exactly as tested: asked for through other packages, pip may take a newer build for other hardware.
    "$python" -m pip install --quiet --constraint constraints.txt "$torch"
    "$python" -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
}

main() {
    local stamp=.venv/.stamp current python
    current=$(fingerprint)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$current" ] || ! environment_python >/dev/null; then
        environment_python >/dev/null || create_environment
        python=$(environment_python)
        install_packages "$python"
        printf '%s\n' "$current" >"$stamp"
    fi
    # Asked every time, because it costs nothing and screens come and go. Everything but the widgets works without.
    prepare_screen || true
}

main
