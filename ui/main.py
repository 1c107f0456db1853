"""The pages and their navigation. Streamlit runs this file at every interaction: it only draws."""

from pathlib import Path

import streamlit as st

from ui.convert import page as convert
from ui.live import page as live
from ui.models import page as models
from ui.parts import login
from ui.parts.help import page as help_page
from ui.session.remembered import recall, remember
from ui.session.settings import app_settings
from ui.studio import page as studio
from understudy.jobs.command_line import sentence_for

NAME = "Understudy"
_ICON = Path(__file__).with_name("icon.png")  # a file of ours: an icon by name would be fetched from elsewhere
_WORDMARK = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 168 32" width="168" height="32">
<rect width="32" height="32" rx="8" fill="#27666b"/><path d="M9 9h14v8a7 7 0 0 1-14 0z" fill="none" stroke="#fff"
stroke-width="2"/><path d="M16 9h7v8a7 7 0 0 1-7 7z" fill="#fff"/><text x="42" y="22" font-size="19" font-weight="600"
font-family="system-ui, sans-serif" fill="#3d8a8f">Understudy</text></svg>"""
# The page begins under the navigation, not a hand's breadth below: pictures come first.
_CLOSER = "<style>.stMainBlockContainer { padding-top: 4.5rem; padding-bottom: 3rem; }</style>"

st.set_page_config(page_title=NAME, page_icon=str(_ICON), layout="wide")
st.logo(_WORDMARK, size="medium")
st.html(_CLOSER)
recall()
live_page = st.Page(live.page, title="Live", icon=":material/videocam:", url_path="live", default=True)
st.session_state["live_page"] = live_page  # the Studio leads there
pages = [
    live_page,
    st.Page(studio.page, title="Studio", icon=":material/face:", url_path="studio"),
    st.Page(models.page, title="Models", icon=":material/inventory_2:", url_path="models"),
    st.Page(convert.page, title="Convert", icon=":material/movie_edit:", url_path="convert"),
]
if login.is_configured():
    pages.append(st.Page(login.logout_page, title="Your login", icon=":material/account_circle:", url_path="login"))
pages.append(st.Page(help_page, title="Help", icon=":material/help:", url_path="help"))
must_log_in = login.must_log_in()
chosen = st.navigation(pages, position="hidden" if must_log_in else "top")
st.set_page_config(page_title=f"{getattr(chosen, 'title', NAME)} · {NAME}")  # outside a server a page has no title
if must_log_in:
    login.login_page()
else:
    try:
        chosen.run()
        remember()
    except OSError as error:  # a folder that cannot be used: say which, and how to choose another
        st.error(
            f"{sentence_for(error)} The app keeps its files in UNDERSTUDY_WORK ({app_settings().work}) and keys in "
            f"UNDERSTUDY_HOME ({app_settings().trust}): both must be folders that it may write.",
            icon=":material/folder_off:",
        )
