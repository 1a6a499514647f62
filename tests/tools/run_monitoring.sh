#!/usr/bin/env bash
# monitoring_test.py with its own environment: tests/tools/run_monitoring.sh PROGRAMS_FOLDER [unittest arguments]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$("$here/../../tools/setup_monitoring.sh")
programs=$1
shift
ONESTEP_PROGRAMS=$programs ONESTEP_PROMTOOL=$folder/promtool PYTHONDONTWRITEBYTECODE=1 exec "$folder/bin/python" "$here/monitoring_test.py" "$@"
