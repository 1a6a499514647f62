#!/usr/bin/env bash
# The dashboard's browser tests with their own environment: tests/web/run.sh PROGRAMS_FOLDER [unittest arguments]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/../../tools/setup_browser.sh")
programs=$1
shift
ONESTEP_PROGRAMS=$programs PYTHONDONTWRITEBYTECODE=1 exec "$python" "$here/dashboard_test.py" "$@"
