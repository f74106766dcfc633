#!/usr/bin/env bash
# Everything that only a GPU can show, in a few minutes, on a machine with Python, numba, numba-cuda,
# cuda-core and PyTorch and no network: values of every op and of gradients against the CPU, timings
# against PyTorch, the cost of launches and replays, compute-sanitizer over the kernels' templates.
# The report goes to bench/results/, or to the folder given as the first argument.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
folder=${1:-bench/results}
export GRAPHDL_CACHE_DIR=${GRAPHDL_CACHE_DIR:-$(mktemp -d)}

sanitizer=none
if command -v compute-sanitizer > /dev/null; then
    sanitizer=passed
    for tool in memcheck racecheck synccheck; do
        echo "== compute-sanitizer --tool $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m bench.cuda_check --templates \
            || sanitizer="failed: $tool"
    done
fi
status=0
"$python" -m bench.cuda_check --folder "$folder" --sanitizer "$sanitizer" || status=$?
if [ "$status" = 2 ]; then
    exit 2 # no GPU, and that has been said
fi

# The workloads of the suite; what was measured before the time is up is in the file.
seconds=${SUITE_SECONDS:-900}
echo "== the suite, for at most $seconds s"
timeout "$seconds" "$python" -m bench --target cuda --quick --json "$folder/cuda-suite-$(date -u +%F).json" ||
    echo "the suite ended early with $?"
exit "$status"
