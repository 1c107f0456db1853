"""Which model plays: as shipped, champion, challenger, remote. Drawn only where there is a choice."""

import streamlit as st

from ui.session.model_sources import ModelSource, ModelSources
from ui.session.viewer import Viewer

_TITLES = {
    ModelSource.EMBEDDED: "As shipped",
    ModelSource.CHAMPION: "Champion",
    ModelSource.CHALLENGER: "Challenger",
    ModelSource.REMOTE: "Remote",
    ModelSource.CANARY: "Remote canary",
}
_KEY = "model"


def pick_model(model_sources: ModelSources, viewer: Viewer) -> None:
    """Draw the choice, let it play, and say what plays now."""
    sources = model_sources.sources()
    if len(sources) < 2:
        return
    if st.session_state.get(_KEY) not in sources:
        st.session_state[_KEY] = viewer.wanted if viewer.wanted in sources else model_sources.default
    chosen = st.segmented_control("Model", sources, format_func=_TITLES.__getitem__, key=_KEY, required=True)
    source = model_sources.default if chosen is None else ModelSource(chosen)
    viewer.wanted = source
    served = model_sources.served(source)
    if viewer.served is not served:
        future = viewer.switch_model(served)
        if future.done() and (error := future.exception()) is not None:
            st.warning(str(error), icon=":material/block:")
    title = viewer.served.title if viewer.served is not None else ""
    if problem := model_sources.problem(source):
        st.caption(f"{title} plays on: {problem}")
    elif not model_sources.is_ready(source):
        st.caption(f"{_TITLES[source]} is on its way; {title} plays until then.")
    else:
        st.caption(f"{served.title} plays." if viewer.served is served else f"{served.title} takes over in a moment.")
