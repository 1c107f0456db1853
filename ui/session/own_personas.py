"""The personas that a viewer made in the Studio, and how they come to play in that viewer's stream.

A persona is a folder of the viewer's workspace:

    persona.json      title, and when it was made
    photo.png, still.png, mesh.npy, thumbnail.jpg    its look
    consent.json      the signed record of what the look may be used for
    clips/, faceset/  what its decoder learns from
    runs/             trainings; the newest finished one's bundle plays, and until then the still does
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
from understudy.bundle.bundle import Bundle, PersonaInfo
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import Trust, TrustError, TrustStore
from understudy.jobs.atomic_file import write_json
from understudy.swap.renderer import Renderer, open_renderer, photo_persona

NOTE = "persona.json"
_REPLACE_LIMIT_S = 5.0
_ON_STAGE = "shelf_on_stage"


@dataclass(frozen=True, slots=True)
class ShelfPersona:
    """A persona of a viewer's own.

    Attributes:
        folder: holds everything about it.
        name: identifier; the folder's name.
        title: what people read.
        is_played_by_still: whether the photo plays although there is a network.
    """

    folder: Path
    name: str
    title: str
    is_played_by_still: bool = True

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
        )

    @property
    def clips(self) -> Path:
        """Clips and photos that its decoder learns from."""
        return self.folder / "clips"

    @property
    def faceset(self) -> Path:
        """The faces found in them."""
        return self.folder / "faceset"

    @property
    def runs(self) -> Path:
        """Its trainings, each in a folder of its own."""
        return self.folder / "runs"

    @property
    def bundle(self) -> Path | None:
        """The bundle of its newest finished training; None where there is none."""
        manifests = sorted(self.runs.glob("*/out/bundle/manifest.json"))
        return manifests[-1].parent if manifests else None

    @property
    def played(self) -> Path | None:
        """The bundle that plays it; None where its photo does."""
        return None if self.is_played_by_still else self.bundle

    @property
    def photo_persona(self) -> Path | None:
        """The folder of its photo where that plays it; None where a network does."""
        return None if self.played else self.folder

    @property
    def stamp(self) -> tuple[str, int]:
        """Changes whenever what plays it changes."""
        bundle = self.played
        played = bundle / "manifest.json" if bundle else self.folder / "still.png"
        return str(played), played.stat().st_mtime_ns

    def persona(self) -> Persona:
        """Its record.

        Raises:
            ConsentError: there is none, or it is broken.
        """
        return Persona.load(self.name, self.title, self.info.still, self.info.consent)

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
            stored = json.loads(note.read_text())
            folder = note.parent
            is_by_still = bool(stored.get("is_played_by_still", True))
            found.append(ShelfPersona(folder, folder.name, str(stored["title"]), is_by_still))
    return found


def play_by_still(persona: ShelfPersona, is_by_still: bool) -> None:
    """Choose between a persona's photo and its network, from the next run of the Live page on."""
    note = persona.folder / NOTE
    write_json(note, json.loads(note.read_text()) | {"is_played_by_still": is_by_still})


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
    renderers = {each.name: _renderer(str(each.folder), each.name, each.stamp) for each in own}
    names = {*renderers, *(info.name for info in shared.bundle.personas)}
    choices = viewer.choices
    if choices.swap.persona not in names:  # it was removed: nobody plays it any more
        viewer.choose(replace(choices, swap=replace(choices.swap, persona=shared.bundle.personas[0].name)))
    viewer.set_own_personas(renderers, [each.info for each in own]).result(_REPLACE_LIMIT_S)


@st.cache_resource(max_entries=32, show_spinner=False)
def _renderer(folder: str, name: str, stamp: tuple[str, int]) -> Renderer:
    """Open what plays a persona: its decoder, or its still until there is one. `stamp` says which, and how old."""
    played, _ = stamp
    if played.endswith("manifest.json"):
        return open_renderer(Bundle.load(Path(played).parent), name)
    return photo_persona(Path(folder), served_model().bundle)
