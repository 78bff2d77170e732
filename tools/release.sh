#!/usr/bin/env bash
# Builds wheel and sdist, checks them, installs the wheel into a clean environment as a camera does and says what that takes,
# then adds what the demo needs and runs it. `make release` runs it. PYTHON has build and twine; DEMO_PYTHON makes the clean environment (default: the same).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
readonly LIMIT=6000000 CAMERA_LIMIT_MB=270

rm -rf dist
"$PYTHON" -m build --outdir dist .
"$PYTHON" -m twine check --strict dist/*
wheel=$(ls dist/*.whl)
size=$(stat -c %s "$wheel")
echo "$wheel: $size bytes"
if ((size >= LIMIT)); then
    echo "the wheel is not below $LIMIT bytes" >&2
    exit 1
fi

clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
"${DEMO_PYTHON:-$PYTHON}" -m venv "$clean/venv"
install=("$clean/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" --no-compile "$(realpath "$wheel")"
"$clean/venv/bin/python" tools/install_size.py --limit $CAMERA_LIMIT_MB
"${install[@]}" "$(realpath "$wheel")[server,evaluate]"
(cd "$clean" && venv/bin/accmpeg demo --output demo && test -s demo/report.html)

if grep -q repository.example pyproject.toml; then
    echo "ready, but for one thing: set the repository's public address in pyproject.toml before you upload" >&2
fi
