"""The Models page: what is registered, who is champion, what a promotion must hold, and the way back."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import streamlit as st

from pipelines.gates import Gate, load_gates
from ui.parts.chart import table
from ui.parts.consent_badge import consent_status
from ui.parts.figures import LABELS, figures_table, show_clips, show_gates
from ui.parts.job_card import is_active, plain, watch_job
from ui.parts.needs import show_missing
from ui.parts.notes import noted_job, read_note
from ui.parts.registry_view import (
    Snapshot,
    Version,
    promote_job,
    promotion_folder,
    registry_view,
    rollback_folder,
    rollback_job,
)
from ui.parts.uploads import keep_uploads
from ui.session.own_personas import trust_store
from ui.session.workspace import is_local_or_logged_in
from understudy.bundle.bundle import Bundle, BundleError, PersonaInfo
from understudy.jobs.queue import JobState
from understudy.media.guard import VIDEO_EXTENSIONS, MediaError

_STALE_S = 30.0
_PERSONAS_IN_A_ROW = 4
_ALIAS_ICONS = {"champion": ":material/trophy:", "challenger": ":material/flag:"}


def page() -> None:
    """Draw the page."""
    st.title("Models")
    st.caption("Every training registers a version. The champion is what people should get; gates decide who that is.")
    if show_missing("The registry", ("mlflow",)):
        return
    registry_view().refresh(older_than_s=_STALE_S)
    snapshot = registry_view().read()
    _freshness(snapshot)
    if snapshot.problem:
        st.error(plain(snapshot.problem), icon=":material/database:")
        return
    if not snapshot.versions:
        _nothing(snapshot)
        return
    versions_column, version_column = st.columns([2, 3], gap="large")
    with versions_column:
        chosen = _choose(snapshot)
        _rollback(snapshot)
    with version_column:
        _version(snapshot, chosen)


def _nothing(snapshot: Snapshot) -> None:
    """The empty state: what to do; before the first look, that it is being looked."""
    if not snapshot.taken_s:
        st.info("Looking at the registry for the first time; this takes some seconds.", icon=":material/hourglass_top:")
        return
    st.info(
        "No version is registered yet. Train a persona in the Studio: its result appears here as a challenger. "
        "Or register a bundle: `uv run python -m pipelines.registry register bundles/default --alias champion`.",
        icon=":material/inventory_2:",
    )


def _freshness(snapshot: Snapshot) -> None:
    """Say how old the picture is, and look again by itself while a new one is taken."""
    if registry_view().is_busy():
        st.fragment(_await_snapshot, run_every=1.0)(snapshot.taken_s)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        age_s = max(0, round(time.time() - snapshot.taken_s))
        age = f"As of {age_s} s ago." if age_s < 90 else f"As of {age_s // 60} min ago."
        st.caption(age if snapshot.taken_s else registry_view().trouble or "The registry was not asked yet.")
        st.button("Look again", key="refresh", icon=":material/refresh:", type="tertiary", on_click=_refresh)


def _refresh() -> None:
    registry_view().refresh()


def _await_snapshot(before_s: float) -> None:
    if not registry_view().is_busy() or registry_view().read().taken_s != before_s:
        st.rerun()
    st.caption("Asking MLflow…")


def _choose(snapshot: Snapshot) -> Version:
    """Draw the versions, newest first, as a list to pick from."""
    by_number = {version.version: version for version in snapshot.versions}
    start = snapshot.by_alias("challenger") or snapshot.versions[0]
    numbers = list(by_number)
    chosen = st.radio(
        "Versions",
        numbers,
        index=numbers.index(start.version),
        format_func=lambda number: f"Version {number}",
        captions=[_line(by_number[number]) for number in numbers],
        key="version",
    )
    return by_number.get(chosen or start.version, start)


def _line(version: Version) -> str:
    """One version in a line: its aliases, personas, age and judgement."""
    when = datetime.fromtimestamp(version.created_s, UTC)
    parts = [f"@{alias}" for alias in version.aliases]
    parts += [plain(", ".join(version.personas)), f"{when:%d %b %Y}"]
    parts += ["gates passed" if version.gates == "passed" else "gates failed"] if version.gates else []
    return " · ".join(parts)


def _version(snapshot: Snapshot, version: Version) -> None:
    """Draw one version: pictures first, then figures, consent, gates and the promotion."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Version {version.version}", width="content")
        for alias in version.aliases:
            icon = _ALIAS_ICONS.get(alias, ":material/sell:")
            st.badge(alias, icon=icon, color="green" if alias == "champion" else "blue")
    bundle = _bundle(str(version.bundle)) if version.bundle else None
    if bundle is None:
        st.warning(
            "Its bundle cannot be fetched or is damaged, so it cannot be promoted.", icon=":material/broken_image:"
        )
    else:
        _personas(bundle.personas)
    if version.sheet is not None and version.sheet.is_file():
        with st.expander("Pictures of its training", icon=":material/grid_view:", expanded=True):
            st.image(str(version.sheet), width="stretch", caption="Driver, target, network, swap")
    _promotion(snapshot, version, can_promote=bundle is not None)
    _figures(version)


@st.cache_resource(max_entries=16, show_spinner="Verifying the bundle")
def _bundle(path: str) -> Bundle | None:
    """Verify a bundle once; None where it is damaged."""
    try:
        return Bundle.load(path)
    except (BundleError, OSError):
        return None


def _personas(personas: tuple[PersonaInfo, ...]) -> None:
    """Draw every persona with its picture and its consent."""
    columns = st.columns(_PERSONAS_IN_A_ROW)
    for place, info in enumerate(personas):
        with columns[place % _PERSONAS_IN_A_ROW]:
            status = consent_status(info, trust_store())
            st.image(str(info.thumbnail), width="stretch", alt=info.title)
            st.markdown(f"**{plain(info.title)}**", help=plain(status.sentence))
            icon = ":material/gpp_bad:" if status.colour == "red" else ":material/verified_user:"
            st.badge(status.label, icon=icon, color=status.colour)


def _promotion(snapshot: Snapshot, version: Version, can_promote: bool) -> None:
    """Draw the gates, the last judgement, and the button."""
    st.markdown("#### Promotion")
    folder = promotion_folder(version)
    job = noted_job(folder)
    if job is not None and (is_active(job) or job.state is JobState.FAILED):
        watch_job(job, lambda _: "Swapping the same clips with both, and measuring", registry_view().refresh)
    decision = version.decisions[0] if version.decisions else read_note(folder / "decision.json")
    if decision:
        show_gates(decision)
        show_clips({f"Version {version.version}": folder / "candidate", "Champion then": folder / "champion"})
        _compared(decision)
    else:
        _gates()
    if "champion" in version.aliases:
        st.caption("This version is the champion.")
    elif not is_local_or_logged_in():
        st.caption("Only whoever runs this app may promote.")
    elif can_promote and not is_active(job):
        _promote(snapshot, version, folder)


def _gates() -> None:
    """Draw what a candidate must hold."""
    lines = [f"- {LABELS.get(gate.figure, gate.figure.replace('_', ' '))}: {_bound(gate)}" for gate in load_gates()]
    with st.expander(f"What it must hold: {len(lines)} gates, and consent for every persona", icon=":material/rule:"):
        st.markdown("\n".join(lines))


def _bound(gate: Gate) -> str:
    side = "at least" if gate.is_more_better else "at most"
    bounds = [f"{side} {gate.limit:g}"] if gate.limit is not None else []
    bounds += [f"no more than {gate.slack:g} worse than the champion’s"] if gate.slack is not None else []
    return ", ".join(bounds)


def _promote(snapshot: Snapshot, version: Version, folder: Path) -> None:
    """Draw the upload of a held-out clip and the button that judges by it."""
    uploads = st.file_uploader(
        "Held-out clips: anybody’s face, seen by no training",
        list(VIDEO_EXTENSIONS),
        accept_multiple_files=True,
        key=f"held-out-{version.version}",
        max_upload_size=50,
    )
    if not st.button(
        "Promote",
        key="promote",
        type="primary",
        icon=":material/trophy:",
        disabled=not uploads,
        help="If every gate holds.",
    ):
        return
    try:
        clips = keep_uploads(uploads, folder / "clips")
    except MediaError as error:
        st.error(plain(str(error)), icon=":material/block:")
        return
    promote_job(snapshot.name, version, clips)
    st.rerun()


def _compared(decision: Mapping[str, Any]) -> None:
    """Draw the figures of candidate and champion on the same clips."""
    if decision.get("candidate_figures"):
        champion = decision.get("champion")
        sides = {f"Version {decision.get('candidate')}": decision["candidate_figures"]}
        if decision.get("champion_figures"):
            sides[f"Champion then, version {champion}"] = decision["champion_figures"]
        figures_table(sides)


def _figures(version: Version) -> None:
    """Draw what its training logged."""
    if not version.metrics:
        return
    with st.expander("Figures of its training", icon=":material/monitoring:"):
        rows = [[plain(name), f"{value:.4g}"] for name, value in sorted(version.metrics.items())]
        table(["Figure", "Last value"], rows)


def _rollback(snapshot: Snapshot) -> None:
    """Draw the way back to the champion before."""
    champion = snapshot.by_alias("champion")
    past = [number for number in snapshot.history if champion is None or number != champion.version]
    job = noted_job(rollback_folder())
    if job is not None and (is_active(job) or job.state is JobState.FAILED):
        watch_job(job, lambda _: "Swapping the same clips with both, and measuring", registry_view().refresh)
    if champion is None or not past or is_active(job) or not is_local_or_logged_in():
        return
    with st.popover(f"Roll back to version {past[-1]}", icon=":material/undo:"):
        st.markdown(f"Version {champion.version} stops being the champion; version {past[-1]} is it again.")
        if st.button("Roll back", key="rollback", type="primary", icon=":material/undo:"):
            rollback_job(snapshot.name)
            st.rerun()
