"""What training and the registry need besides the app, and how to get it: the app's own installation stays small."""

from importlib.util import find_spec

import streamlit as st

_PACKAGES = ("keras", "mlflow", "tensorflow", "tf2onnx")
COMMAND = "uv run --group train streamlit run app.py"


def show_missing(what: str, packages: tuple[str, ...] = _PACKAGES) -> bool:
    """Say what is missing and how to get it; gives whether anything is.

    Args:
        what: that needs it, as the sentence begins.
        packages: what must be installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        st.info(
            f"{what} needs packages that the app does without ({', '.join(missing)}; 2 GB at most). "
            f"Stop the app, then start it by `{COMMAND}`: they come by themselves, and nothing is lost.",
            icon=":material/download:",
        )
    return bool(missing)
