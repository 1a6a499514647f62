#!/usr/bin/env bash
# Makes the Python environment of the contract's test (schemathesis) where it is missing, and prints the path of its python.
# Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python_environment.sh"

need_environment contract "the contract's test"
echo "$cache/contract/bin/python"
