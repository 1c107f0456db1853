"""Logging in by OpenID Connect, where whoever runs the app configured it: `[auth]` in .streamlit/secrets.toml.

Without that, nobody is asked: the app answers on its own machine alone. With it, nobody sees a page before.
"""

from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAuthError

_PROBLEM = "login_problem"


def is_configured() -> bool:
    """Whether people have to log in. A file of secrets that cannot be read may ask for it: then nobody gets in."""
    if st.secrets.load_if_toml_exists():
        return "auth" in st.secrets
    return any(Path(path).exists() for path in st.get_option("secrets.files"))


def must_log_in() -> bool:
    """Whether whoever looks at the page has still to log in."""
    return is_configured() and not st.user.get("is_logged_in")


def login_page() -> None:
    """Draw the only thing to do for somebody who is not logged in."""
    st.title("Understudy")
    st.caption("Someone else plays you, live, and everyone agreed. Your personas and clips are kept under your login.")
    st.button("Log in", key="log_in", type="primary", icon=":material/login:", on_click=_log_in)
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(problem, icon=":material/key_off:")


def logout_page() -> None:
    """Draw who is logged in, and the way out."""
    st.title("Your login")
    st.caption(f"Logged in as {st.user.get('name') or st.user.get('email') or 'somebody without a name'}.")
    st.button("Log out", key="log_out", type="primary", icon=":material/logout:", on_click=st.logout)


def _log_in() -> None:
    """Send the browser to the provider, or say what the operator has to do first."""
    try:
        st.login()
    except StreamlitAuthError as error:
        st.session_state[_PROBLEM] = f"Nobody can log in yet: {error} Whoever runs the app: see docs/app.md."
