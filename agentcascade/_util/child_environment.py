"""Environment of child processes: an allow-list, so that no key of ours reaches what they run.

AppWorld's interpreter runs code that models wrote, and engines run code that came with a model. Of this process's
variables they get what a program needs to run at all, nothing that is named like a secret, and no URL with a password.
$AGENTCASCADE_CHILD_VARIABLES names more of them, separated by commas.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from agentcascade._util.known_secrets import SECRET_VARIABLE

NAMES = {
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TMP",
        "TEMP",
        "TERM",
        "HOSTNAME",
    ),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE"),
}
PREFIXES = ("LC_",)
ENGINE = (
    *(
        "VLLM_",
        "CUDA_",
        "NVIDIA_",
        "NCCL_",
        "HIP_",
        "ROCR_",
        "ROCM_",
        "HSA_",
        "TPU_",
        "ONEAPI_",
        "ZE_",
        "CCL_",
        "GLOO_",
    ),
    *(
        "TORCH",
        "PYTORCH_",
        "TRITON_",
        "FLASHINFER_",
        "OMP_",
        "MKL_",
        "OPENBLAS_",
        "KMP_",
        "NUMEXPR_",
        "HF_",
        "HUGGINGFACE_",
    ),
    *("TRANSFORMERS_", "SAFETENSORS_", "TOKENIZERS_", "RAY_", "UCX_", "FI_", "CPATH", "CC", "CXX", "MAX_JOBS"),
)
"""Prefixes of what vLLM and the libraries under it read."""
HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Secrets that an engine needs for models which their owners open to some only."""
INSTALLER = (
    "PIP_",
    "UV_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""Prefixes of what pip reads; it runs nothing of a model's."""
MORE = "AGENTCASCADE_CHILD_VARIABLES"


def child_environment(prefixes: Sequence[str] = (), secrets: Sequence[str] = ()) -> dict[str, str]:
    """The variables of this process that a child gets: those of `prefixes` beside the usual, and `secrets` by name."""
    named = {name.strip() for name in os.environ.get(MORE, "").split(",")} | set(secrets)
    starts = (*PREFIXES, *prefixes)
    return {
        name: value
        for name, value in os.environ.items()
        if name in named or ((name in NAMES or name.startswith(starts)) and not _secret(name, value))
    }


def installer_environment() -> dict[str, str]:
    """For pip, whose index and proxy may need a password."""
    installer_variables = {name: value for name, value in os.environ.items() if name.startswith(INSTALLER)}
    return child_environment() | installer_variables


def _secret(name: str, value: str) -> bool:
    if SECRET_VARIABLE.search(name):
        return True
    try:
        return "://" in value and urlsplit(value).password is not None
    except ValueError:
        return True
