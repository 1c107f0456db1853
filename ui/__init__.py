"""Streamlit pages and relays. Nothing here knows how a face is swapped."""

import understudy as understudy  # keeps libraries quiet before any is loaded
