"""Keeps dependencies from phoning home: entry points call it before anything else is imported."""

from collections.abc import MutableMapping

# Read by MLflow when it is imported, and by whatever honours the common sign (https://consoledonottrack.com).
# Streamlit's own switch is in .streamlit/config.toml; kfp sends nothing.
_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


def keep_quiet(environment: MutableMapping[str, str]) -> None:
    """Turn telemetry off, unless the operator has decided otherwise.

    Args:
        environment: os.environ, handed in by the entry point; child processes inherit it.
    """
    for name, value in _SWITCHES.items():
        environment.setdefault(name, value)
