"""How good a persona is on a clip it has not seen, beside the champion, and the way to promote it."""

from pathlib import Path
from typing import NamedTuple

import streamlit as st

from ui.parts.figures import figures_table, show_clips, show_gates
from ui.parts.job_card import is_active, watch_job
from ui.parts.job_entry import job_command
from ui.parts.notes import note_job, noted_job, read_note
from ui.parts.registry_view import promote_job, promotion_folder, registry_view
from ui.parts.uploads import keep_upload
from ui.session.own_personas import ShelfPersona
from ui.session.shared import served_model
from ui.session.workspace import is_local_or_logged_in, job_queue
from ui.studio.faces_panel import clips_of
from understudy.bundle.bundle import Bundle, BundleError
from understudy.jobs.atomic_file import write_json
from understudy.jobs.queue import Job, JobState, module_command
from understudy.media.guard import VIDEO_EXTENSIONS, MediaError

MODEL = "understudy"
_FRAMES = "150"


class _Rival(NamedTuple):
    """Whom the new persona is compared with."""

    title: str
    bundle: Path
    persona: str


def compare_panel(persona: ShelfPersona) -> None:
    """Draw the comparison of a persona that has a bundle."""
    st.subheader("How good is it on others?")
    folder = persona.evaluation
    evaluation, promotion = noted_job(folder, "evaluate"), noted_job(folder, "promote")
    held_out = _held_out_clip(persona)
    clip = held_out or _own_clip(persona)
    with st.container(horizontal=True):
        is_busy = is_active(evaluation) or is_active(promotion)
        is_first = not (folder / "candidate").is_dir()
        if st.button(
            "Evaluate and compare",
            key="evaluate",
            type="primary" if is_first else "secondary",
            icon=":material/straighten:",
            disabled=is_busy or clip is None,
        ):
            _evaluate(persona, clip)
            st.rerun()
        _promote_button(persona, held_out, is_busy, is_first)
    for job in (evaluation, promotion):
        if job is not None and (is_active(job) or job.state is not JobState.DONE):
            watch_job(job, _doing, registry_view().refresh)
    _results(persona, promotion)


def _held_out_clip(persona: ShelfPersona) -> Path | None:
    """Draw the choice of a clip to judge by: an upload, or what was uploaded for the same purpose before."""
    folder = persona.evaluation / "clips"
    upload = st.file_uploader(
        "A clip of anybody, that is not among the persona’s own",
        list(VIDEO_EXTENSIONS),
        key="judge_clip",
        max_upload_size=50,
    )
    if upload is not None:
        try:
            return keep_upload(upload, folder)
        except MediaError as error:
            st.error(str(error), icon=":material/block:")
    clips = [path for path in folder.glob("*") if path.suffix in VIDEO_EXTENSIONS]
    return max(clips, key=lambda path: path.stat().st_mtime, default=None)


def _own_clip(persona: ShelfPersona) -> Path | None:
    """What to evaluate by where nothing was uploaded; never to promote by."""
    own = clips_of(persona)
    if own:
        st.caption("Without one, the persona’s own clip is used: it shows who is played, so the figures flatter.")
    return own[-1] if own else None


def _rival() -> _Rival | None:
    """The champion where one is registered and fetched, else the bundle that ships."""
    champion = registry_view().read().by_alias("champion")
    if champion is not None and champion.bundle is not None and champion.personas:
        return _Rival(f"Champion, version {champion.version}", champion.bundle, champion.personas[0])
    try:
        shipped = served_model().bundle
    except BundleError:
        return None
    return _Rival("As shipped", shipped.path, shipped.personas[0].name)


def _evaluate(persona: ShelfPersona, clip: Path | None) -> None:
    """Queue the measurement of both."""
    if clip is None or persona.bundle is None:
        return
    rival = _rival()
    commands = [_evaluation(clip, persona.bundle, persona.name, persona.evaluation / "candidate")]
    if rival is not None:
        commands.append(_evaluation(clip, rival.bundle, rival.persona, persona.evaluation / "champion"))
        write_json(persona.evaluation / "rival.json", {"title": rival.title})
    command = job_command(*commands, vet=[clip])
    note_job(persona.evaluation, job_queue().submit("evaluate", f"Evaluation of {persona.title}", command), "evaluate")
    job_queue().ensure_worker()


def _evaluation(clip: Path, bundle: Path, persona: str, out: Path) -> tuple[str, ...]:
    out.mkdir(parents=True, exist_ok=True)
    options = ("--bundle", bundle.resolve(), "--persona", persona, "--json", "--out", out, "--frames", _FRAMES)
    return module_command("training.evaluate", clip, *options)


def _promote_button(persona: ShelfPersona, clip: Path | None, is_busy: bool, is_first: bool) -> None:
    """Draw the button; the version is the one that was registered with the references."""
    snapshot = registry_view().read()
    version = snapshot.by_digest(_digest(persona))
    if version is None:
        registry_view().refresh(older_than_s=20)
        st.button(
            "Promote", key="promote", icon=":material/trophy:", disabled=True, help="Its version is being looked up."
        )
        return
    is_wanted = st.button(
        "Promote",
        key="promote",
        type="secondary" if is_first else "primary",
        icon=":material/trophy:",
        disabled=is_busy or clip is None or "champion" in version.aliases or not is_local_or_logged_in(),
        help=f"Version {version.version} becomes the champion, if it holds every gate on this clip."
        if clip is not None
        else "Upload a clip above that is not the persona’s own: nothing is promoted by what it learned from.",
    )
    if is_wanted and clip is not None:
        note_job(persona.evaluation, promote_job(MODEL, version, [clip]), "promote")
        st.rerun()


@st.cache_data(max_entries=64, show_spinner=False)
def _digest_of(manifest: str, stamp: int) -> str:
    return Bundle.load(Path(manifest).parent).digest


def _digest(persona: ShelfPersona) -> str:
    if persona.bundle is None:
        return ""
    manifest = persona.bundle / "manifest.json"
    return _digest_of(str(manifest), manifest.stat().st_mtime_ns)


def _doing(job_id: str) -> str:
    return _last_line(job_queue().log_tail(job_id)) or "Starting"


def _last_line(log: str) -> str:
    """What the command says of itself now: the last of the lines that its progress bar wrote over each other."""
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:80].split("|")[0].strip() if lines else ""


def _results(persona: ShelfPersona, promotion: Job | None) -> None:
    """Draw what is known: figures of both, their clips, and the gates of a promotion."""
    sides = {"This persona": persona.evaluation / "candidate"}
    rival = read_note(persona.evaluation / "rival.json").get("title")
    if rival:
        sides[str(rival)] = persona.evaluation / "champion"
    reports = {title: [read_note(path) for path in sorted(folder.glob("*.json"))] for title, folder in sides.items()}
    if any(reports.values()):
        show_clips(sides)
        figures_table(reports)
    version = registry_view().read().by_digest(_digest(persona))
    if version is None or promotion is None or promotion.state is not JobState.DONE:
        return
    if decision := read_note(promotion_folder(version) / "decision.json"):
        show_gates(decision)
