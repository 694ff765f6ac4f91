#!/bin/sh
# Put on this machine what pip cannot: a Python that can make virtual environments, and git-lfs.
# usage: bootstrap.sh PYTHON
# Says nothing and does nothing where both are there. Uses apt-get (as root, or through sudo) or Homebrew.
set -eu
python=$1

install() { # install PACKAGE: with whatever package manager this machine has
    if command -v apt-get >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null 2>&1; then sudo=sudo; else return 1; fi
        echo "installing $1 (apt-get)"
        $sudo apt-get update -qq </dev/null && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$1" </dev/null >/dev/null
    elif command -v brew >/dev/null 2>&1; then
        echo "installing $1 (brew)"
        brew install --quiet "$1"
    else
        return 1
    fi
}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "git-theta needs Python 3.10 or newer, and '$python' is not; run: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    install python3-venv || {
        echo "'$python' cannot make virtual environments; install its venv module (Debian: python3-venv), then run make again" >&2
        exit 1
    }
fi
if ! command -v git-lfs >/dev/null 2>&1; then
    install git-lfs || {
        echo "git-lfs is missing and cannot be installed from here; install it (https://git-lfs.com), then run make again" >&2
        exit 1
    }
fi
