"""Which model plays: as shipped, champion, challenger, remote. Drawn only where there is a choice."""

import streamlit as st

from ui.session.model_sources import Repertoire, Source
from ui.session.viewer import Viewer

_TITLES = {
    Source.EMBEDDED: "As shipped",
    Source.CHAMPION: "Champion",
    Source.CHALLENGER: "Challenger",
    Source.REMOTE: "Remote",
}
_KEY = "model"


def pick_model(repertoire: Repertoire, viewer: Viewer) -> None:
    """Draw the choice, let it play, and say what plays now."""
    sources = repertoire.sources()
    if len(sources) < 2:
        return
    if st.session_state.get(_KEY) not in sources:
        st.session_state[_KEY] = viewer.wanted if viewer.wanted in sources else repertoire.default
    chosen = st.segmented_control("Model", sources, format_func=_TITLES.__getitem__, key=_KEY, required=True)
    source = repertoire.default if chosen is None else Source(chosen)
    viewer.wanted = source
    house = repertoire.house(source)
    if viewer.house is not house:
        future = viewer.play(house)
        if future.done() and (error := future.exception()) is not None:
            st.warning(str(error), icon=":material/block:")
    title = viewer.house.title if viewer.house is not None else ""
    if problem := repertoire.problem(source):
        st.caption(f"{title} plays on: {problem}")
    elif not repertoire.is_ready(source):
        st.caption(f"{_TITLES[source]} is on its way; {title} plays until then.")
    else:
        st.caption(f"{house.title} plays." if viewer.house is house else f"{house.title} takes over in a moment.")
