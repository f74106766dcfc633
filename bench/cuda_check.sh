#!/usr/bin/env bash
# Everything that only a GPU can show, on a machine with Python, numba, numba-cuda, cuda-core, ml_dtypes
# and PyTorch and no network: values of every op and of gradients against NumPy, timings against
# PyTorch, the cost of launches and replays, compute-sanitizer over the kernels' templates, the suite.
#
#     bash bench/cuda_check.sh [folder]          # the report goes to bench/results/, or to the folder
#     PARTS="timings torch" bash bench/cuda_check.sh [folder]
#
# Each part is a process with a time limit of its own, and the report is written after each case: what
# was done when the machine is taken away is there, and a part that fails, or a kernel that kills its
# process, costs nothing but itself. All parts together take SECONDS_IN_ALL (540) at the most; what
# there was no time for is named at the end, with the command that goes on, on a fresh machine too:
# give it the same folder with the report so far.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
folder=${1:-bench/results}
parts=${PARTS:-environment templates timings torch launches ops sanitizer suite}
export GRAPHDL_CACHE_DIR=${GRAPHDL_CACHE_DIR:-$(mktemp -d)} PYTHONUNBUFFERED=1
end=$((SECONDS + ${SECONDS_IN_ALL:-540}))

"$python" - <<'EOF' || exit 2
import sys

missing = []
for name in ("numpy", "scipy", "numba", "msgspec", "optree", "opt_einsum", "networkx", "ml_dtypes",
             "numba_cuda", "cuda.core"):
    try:
        __import__(name)
    except ImportError as error:
        missing.append(f"{name} ({error})")
if missing:
    sys.exit(
        f"nothing was measured: {sys.executable} lacks {', '.join(missing)}.\n"
        "Without a network, bring wheels: on a machine with one\n"
        "    python3 -m pip download --only-binary=:all: --no-deps -d wheels optree ...\n"
        "and here\n"
        "    python3 -m pip install --no-index --no-deps --target site wheels/*.whl\n"
        "    export PYTHONPATH=site"
    )
EOF

left() { echo $((end - SECONDS)); }
wrong=0
unfinished=()
outcome=

# limited NAME LIMIT COMMAND...: run it for at most LIMIT seconds, or for what is left
limited() {
    local name=$1 limit=$2
    shift 2
    [ "$limit" -gt "$(left)" ] && limit=$(left)
    if [ "$limit" -lt 10 ]; then
        outcome="no time was left"
        unfinished+=("$name")
        return 0
    fi
    echo "== $name, for at most $limit s"
    timeout --kill-after=10 "$limit" "$@"
    local status=$?
    outcome="exit $status"
    if [ $status = 124 ] || [ $status = 137 ]; then
        outcome="stopped after $limit s"
        echo "$name: $outcome"
        unfinished+=("$name")
        return 0
    fi
    return $status
}

sanitized() {
    if ! command -v compute-sanitizer > /dev/null; then
        "$python" -m bench.cuda_check --folder "$folder" --sanitizer "not installed"
        return
    fi
    local tool said=()
    for tool in memcheck racecheck synccheck; do
        limited sanitizer 120 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$python" -m bench.cuda_check --templates
        said+=("$tool: $outcome")
        "$python" -m bench.cuda_check --folder "$folder" --sanitizer "$(IFS=,; echo "${said[*]}")"
    done
}

for part in $parts; do
    case $part in
        sanitizer) sanitized ;;
        suite)
            # the cases that were measured before the time is up are in the file
            limited suite 600 "$python" -m bench --target cuda --quick \
                --json "$folder/cuda-suite-$(date -u +%F).json" || echo "the suite ended with $?"
            ;;
        *)
            # 3: a kernel has taken the process with it; the next one goes on behind it
            for _ in 1 2 3 4 5 6 7 8; do
                limited "$part" 240 "$python" -m bench.cuda_check --folder "$folder" --part "$part"
                status=$?
                [ $status = 3 ] || break
            done
            [ $status = 2 ] && exit 2 # no GPU, and that has been said
            [ $status = 0 ] || wrong=1
            ;;
    esac
done

cat "$folder"/cuda-*.txt 2> /dev/null
if [ ${#unfinished[@]} -gt 0 ]; then
    names=$(printf '%s\n' "${unfinished[@]}" | sort -u | tr '\n' ' ')
    echo "not finished: $names"
    echo "go on with: PARTS=\"${names% }\" bash bench/cuda_check.sh $folder"
fi
exit $wrong
