"""The Help page: the guides that lie in docs/, to read without leaving the app."""

import re
from pathlib import Path

import streamlit as st

_DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDES = {
    "app": "The app's pages",
    "camera": "OBS, Zoom, Teams, Meet",
    "convert": "Clips and photos",
    "trust": "Consent and marks",
}


def page() -> None:
    """Draw the chosen guide."""
    st.title("Help")
    chosen = st.segmented_control(
        "Guide", list(GUIDES), format_func=GUIDES.__getitem__, default="app", required=True, key="guide"
    )
    st.markdown(guide(_DOCS / f"{chosen or 'app'}.md"))


def guide(path: Path) -> str:
    """Give a guide as the page shows it: without its title, and without pictures and links that lead to other files."""
    if not path.is_file():
        return "The guides come with the repository; this installation has none. They are in its docs/ folder."
    text = path.read_text(encoding="utf-8").partition("\n")[2]
    text = re.sub(r"!\[[^]]*\]\([^)]*\)\n?", "", text)
    return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]*\)", r"\1", text)
