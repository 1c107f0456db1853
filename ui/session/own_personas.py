"""The personas that a viewer made in the Studio, and how they come to play in that viewer's stream.

A persona is a folder of the viewer's workspace:

    persona.json      title, and when it was made
    photo.png, still.png, mesh.npy, thumbnail.jpg    its look
    consent.json      the signed record of what the look may be used for
    clips/, faceset/  what further references are chosen from
    references/       those, and whether they are better than the still alone (`training.references`)
    bundle/           what plays, to be compared and promoted
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from liveframe.errors import LiveframeError
from ui.session.settings import app_settings
from ui.session.shared import ServedModel, served_model
from ui.session.viewer import Viewer
from ui.session.workspace import Workspace, this_workspace
from understudy.bundle.bundle import PersonaInfo
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import Trust, TrustError, TrustStore
from understudy.swap.own_personas import NOTE, REFERENCES, REFERENCES_NOTE, further_references
from understudy.swap.renderer import Renderer, photo_persona

_REPLACE_LIMIT_S = 5.0
_ON_STAGE = "shelf_on_stage"


@dataclass(frozen=True, slots=True)
class ShelfPersona:
    """A persona of a viewer's own.

    Attributes:
        folder: holds everything about it.
        name: identifier; the folder's name.
        title: what people read.
    """

    folder: Path
    name: str
    title: str

    @property
    def info(self) -> PersonaInfo:
        """The same as the Live page's picker takes it."""
        return PersonaInfo(
            name=self.name,
            title=self.title,
            thumbnail=self.folder / "thumbnail.jpg",
            still=self.folder / "still.png",
            mesh=self.folder / "mesh.npy",
            consent=self.folder / "consent.json",
            more=further_references(self.folder),
        )

    @property
    def clips(self) -> Path:
        """Clips and photos that further references are chosen from."""
        return self.folder / "clips"

    @property
    def faceset(self) -> Path:
        """The faces found in them."""
        return self.folder / "faceset"

    @property
    def references(self) -> Path:
        """The references of its clips, and what came of measuring them."""
        return self.folder / REFERENCES

    @property
    def bundle(self) -> Path | None:
        """What plays it, as a bundle; None until its clips were looked at."""
        bundle = self.folder / "bundle"
        return bundle if (bundle / "manifest.json").is_file() else None

    @property
    def evaluation(self) -> Path:
        """Figures and clips of comparisons."""
        return self.folder / "evaluation"

    @property
    def stamp(self) -> tuple[int, ...]:
        """Changes whenever what plays it changes."""
        files = (self.folder / "still.png", self.folder / "consent.json", self.references / REFERENCES_NOTE)
        return tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in files)

    def persona(self) -> Persona:
        """Its record.

        Raises:
            ConsentError: there is none, or it is broken.
        """
        return Persona.of(self.info)

    def refusal(self, use: str, trust: Trust) -> str:
        """Why it may not be put to a use now; "" when it may."""
        try:
            self.persona().check(use, trust)
        except (ConsentError, OSError) as error:
            return str(error)
        return ""


def trust_store() -> TrustStore:
    """The operator's keys."""
    return TrustStore(app_settings().trust)


def shelved(workspace: Workspace) -> list[ShelfPersona]:
    """The viewer's personas, in the order of their names."""
    found: list[ShelfPersona] = []
    for note in sorted(workspace.personas.glob(f"*/{NOTE}")):
        with suppress(ValueError, KeyError, OSError):  # half-made or half-removed: not on the shelf
            title = str(json.loads(note.read_text())["title"])
            found.append(ShelfPersona(note.parent, note.parent.name, title))
    return found


def offered(shared: ServedModel, viewer: Viewer) -> tuple[PersonaInfo, ...]:
    """The personas that a viewer may play live: the bundle's, and their own whose consent covers it.

    Brings the viewer's own into their stream first, between two frames, where something changed.
    """
    try:
        trust = trust_store().read()
    except TrustError:
        return shared.bundle.personas  # nothing of one's own is trusted then
    own = [each for each in shelved(this_workspace()) if not each.refusal("live", trust)]
    wanted = (viewer.token, tuple((each.name, each.stamp) for each in own))
    if st.session_state.get(_ON_STAGE, (viewer.token, ())) != wanted:
        try:
            _bring(shared, viewer, own)
        except (LiveframeError, TimeoutError, OSError) as error:
            st.toast(f"Your own personas cannot play just now: {error}", icon=":material/error:")
            return shared.bundle.personas
        st.session_state[_ON_STAGE] = wanted
    return (*shared.bundle.personas, *(each.info for each in own))


def _bring(shared: ServedModel, viewer: Viewer, own: Sequence[ShelfPersona]) -> None:
    """Give a viewer's stream a model that knows their own personas; the networks stay shared."""
    renderers = {each.name: _renderer(str(each.folder), each.stamp) for each in own}
    names = {*renderers, *(info.name for info in shared.bundle.personas)}
    choices = viewer.choices
    if choices.swap.persona not in names:  # it was removed: nobody plays it any more
        viewer.choose(replace(choices, swap=replace(choices.swap, persona=shared.bundle.personas[0].name)))
    viewer.set_own_personas(renderers, [each.info for each in own]).result(_REPLACE_LIMIT_S)


@st.cache_resource(max_entries=32, show_spinner=False)
def _renderer(folder: str, stamp: tuple[int, ...]) -> Renderer:
    """Open what plays a persona; `stamp` says how old it is."""
    return photo_persona(Path(folder), served_model().bundle)
