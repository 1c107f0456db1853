"""Streamlit pages and relays. Nothing here knows how a face is swapped."""
