"""Keeps dependencies from phoning home. Every package of this repository calls it as it is imported.

Libraries read these switches when they are loaded, so the first import must set them: `understudy/__init__.py` does,
and the other packages that load such libraries import it first.
"""

from collections.abc import MutableMapping

# Read by ONNX Runtime, which otherwise sends events from native code and keeps a device's id under ~/.cache, by MLflow,
# and by whatever honours the common sign (https://consoledonottrack.com). kfp sends nothing.
_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


def keep_quiet(environment: MutableMapping[str, str]) -> None:
    """Turn telemetry off, unless the operator has decided otherwise.

    Args:
        environment: os.environ; child processes inherit it.
    """
    for name, value in _SWITCHES.items():
        environment.setdefault(name, value)
