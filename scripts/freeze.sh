#!/usr/bin/env bash
# Writes constraints.txt from .venv: the exact versions that the tests have passed with.

set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=.venv/Scripts/python.exe

{
    echo "# The exact versions that the tests pass with, on Python 3.11 to 3.13. Written by scripts/freeze.sh."
    echo "# Builds for one kind of hardware (1.0+cpu) are written as 1.0: pip takes the build that fits the computer."
    "$python" -m pip freeze --exclude-editable --exclude pip --exclude napari-tileseg | sed -E 's/\+[a-z0-9.]+$//'
} >constraints.txt.new
mv constraints.txt.new constraints.txt
