#!/usr/bin/env bash
# Install this checkout with some extras into a virtual environment, under a
# lock, and see that it imports. Called by the Makefile:
#   requirements/install.sh VENV EXTRAS LOCK
# PIP_ARGS and TORCH_ARGS are further arguments of pip, as in the Makefile; an
# empty LOCK takes the newest versions that setup.cfg allows. When something
# fails, pip's reason, the versions found and one command that mends it follow.
set -euo pipefail
venv=$1 extras=$2 lock=${3:-}
goal=${GOAL:-install}
python=$venv/bin/python
log=$venv/install.log
pip() {
    # What takes long is named while it happens; everything is in the log.
    # shellcheck disable=SC2086
    "$python" -m pip --disable-pip-version-check install --no-input \
        --progress-bar off ${lock:+-c "$lock"} ${PIP_ARGS:-} "$@" 2>&1 |
        tee -a "$log" | sed -unE "$DOWNLOADS"
}
DOWNLOADS='s/^ *Downloading (.*\/)?([^/ ]+) ?(.*[0-9.]+ [MG]B.*)$/  \2 \3/p'

versions() {
    "$python" - <<'EOF' || true
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

found = ["Python " + platform.python_version()]
for name in ("pip", "torch", "torchaudio", "speechbrain", "transformers"):
    try:
        found.append(name + " " + version(name))
    except PackageNotFoundError:
        found.append(name + " absent")
sys.stderr.write("Found here: " + ", ".join(found) + "\n")
EOF
}

# fail WHAT MEND: pip's last lines, the versions, the way out.
fail() {
    {
        echo "error: $1. The last lines of $log:"
        grep -vE '^(WARNING: Location|\[notice\]|$)' "$log" | tail -n 12 |
            sed 's/^/  | /'
        versions
        df -hP "$venv" | awk 'NR == 2 {print "Free on its disk: " $4}'
        echo "To mend it: $2"
    } >&2
    exit 2
}

mend() {
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        echo "free 6 GB, or take another disk: make $goal VENV=/path/to/venv"
    elif grep -qiE 'NewConnectionError|ConnectionError|Temporary failure in name|name resolution|Network is unreachable|ProxyError|timed out|SSLError|Connection (refused|broken|reset)' "$log"; then
        echo "make $goal   (again, once the package index can be reached;" \
            "behind a proxy: PIP_ARGS=\"--proxy ADDRESS\")"
    elif grep -qE 'ResolutionImpossible|No matching distribution|Could not find a version' "$log"; then
        echo "make $goal LOCK=   (without $lock: the newest versions that" \
            "setup.cfg allows)"
    else
        echo "make distclean $goal   (anew, from an empty environment)"
    fi
}

: > "$log"
echo "Installing speechbrain-ee[$extras] (the first time: minutes, 6 GB)"
if [ -n "${TORCH_ARGS:-}" ]; then
    mapfile -t pair < <(sed -nE 's/^ +(torch(audio)?[<>=!].*)$/\1/p' setup.cfg)
    # shellcheck disable=SC2086
    pip $TORCH_ARGS "${pair[@]}" || fail "pip could not install torch" "$(mend)"
fi
pip -e ".[$extras]" ||
    fail "pip could not install speechbrain-ee[$extras]" "$(mend)"
"$python" -c 'import torch, torchaudio, speechbrain' >> "$log" 2>&1 ||
    fail "the environment in $venv does not import" \
        "make distclean $goal   (anew, with the versions of ${lock:-setup.cfg})"
