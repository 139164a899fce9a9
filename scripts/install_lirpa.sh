#!/bin/sh
# Installs auto_LiRPA, the optional second opinion on bounds, for the Python given:
#   scripts/install_lirpa.sh .venv/bin/python
# The version on PyPI asks for a torch of 2022, so it goes in without its requirements, beside the
# light ones that it really needs. Everything works without it: failing is a notice, not an error.
set -u

python=${1:?"usage: scripts/install_lirpa.sh PYTHON"}
constraints=$(dirname "$0")/../constraints.txt
set --
if [ -f "$constraints" ]; then
    set -- --constraint "$constraints"
fi

if "$python" -m pip install --quiet --no-warn-conflicts "$@" appdirs pyyaml packaging graphviz tqdm &&
    "$python" -m pip install --quiet --no-warn-conflicts "$@" --no-deps auto_LiRPA==0.3; then
    echo "auto_LiRPA 0.3 is installed."
else
    echo "notice: auto_LiRPA could not be installed; all works without it, but no cross-check of bounds." >&2
fi
exit 0
