"""A persona's clips to further references: of the same person alone, measured, and never used where they are worse."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveframe.frame import Frame
from tests.support.real_faces import astronaut, turned, write_clip
from tests.support.small_facesets import sign_files
from training.data.find_faces import FindOptions
from training.extract import ExtractOptions, extract
from training.references import Figures, choose, held_out, is_better, main
from training.still import write_still
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.consent.check import check, extended, read_record
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustStore
from understudy.faceset.faceset import Faceset
from understudy.swap.own_personas import further_references
from understudy.swap.renderer import photo_persona
from understudy.swap.swapper import FaceSwapper, SwapSettings
from understudy.vision.reference import ReferenceFace

GOOD, BAD = Figures(0.8, 0.9, 3.0, 1.0), Figures(0.7, 0.8, 4.0, 1.3)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A persona of the astronaut's photo, with its record, and a faceset of a clip and of somebody else's photo."""
    folder = tmp_path_factory.mktemp("references")
    persona = folder / "eileen"
    persona.mkdir()
    cv2.imwrite(str(persona / "photo.png"), astronaut())
    look = write_still(persona / "photo.png", persona / "still.png")
    np.save(persona / "mesh.npy", look.mesh)
    (persona / "persona.json").write_text(json.dumps({"title": "Eileen C."}))
    sign_files(persona / "consent.json", "eileen", [persona / "photo.png", persona / "still.png"], folder / "trust")
    write_clip(folder / "clip.mp4", [turned(yaw) for yaw in 25 * np.sin(np.linspace(0, 4 * np.pi, 40))])
    stranger = cv2.imread(str(default_bundle() / "kofi/reference.png"))
    cv2.imwrite(str(folder / "stranger.png"), cv2.copyMakeBorder(stranger, *(90,) * 4, cv2.BORDER_REPLICATE))
    sources = (folder / "clip.mp4", folder / "stranger.png")
    extract(ExtractOptions(sources, folder / "faces", FindOptions(), is_quiet=True))
    return folder


def still_of(persona: Path) -> ReferenceFace:
    return ReferenceFace(cv2.imread(str(persona / "still.png")), np.load(persona / "mesh.npy"))


def test_references_are_of_the_person_alone_and_differ(room: Path) -> None:
    faceset = Faceset.open(room / "faces")
    assert len(faceset.sources) == 2
    found = choose(still_of(room / "eileen"), faceset, list(faceset), 4)
    assert 1 <= len(found) <= 4
    names = {entry.name for entry in faceset}
    assert any(name.endswith("stranger.png") for name in names), "somebody else was there to choose"
    skin = [float(each.image[each.image.shape[0] // 2, each.image.shape[1] // 2].mean()) for each in found]
    assert min(skin) > 90, "none of them is the stranger, whose skin is dark"
    meshes = [each.mesh[:, :2] * (128 / each.image.shape[0]) for each in [still_of(room / "eileen"), *found]]
    apart = [np.abs(one - other).mean() for i, one in enumerate(meshes) for other in meshes[:i]]
    assert min(apart) > 1.0


def test_a_part_of_every_clip_is_held_out_and_photos_judge_nothing(room: Path) -> None:
    faceset = Faceset.open(room / "faces")
    assert held_out(faceset) == ([room / "clip.mp4"], 16)
    photos = Faceset(faceset.root, faceset.info, [], {k: v for k, v in faceset.sources.items() if v.kind == "photo"})
    assert held_out(photos) == ([], 0)


@pytest.mark.parametrize(
    ("many", "one", "wanted"),
    [
        (GOOD, BAD, True),
        (BAD, GOOD, False),
        (GOOD, GOOD, False),
        (Figures(0.8, 0.9, 3.0, 1.2), Figures(0.8, 0.8, 4.0, 1.0), False),
        (Figures(0.7, 0.9, 3.0, 1.0), Figures(0.8, 0.8, 4.0, 1.0), False),
        (Figures(0.8, float("nan"), 3.0, 1.0), BAD, False),
    ],
)
def test_only_what_is_nearer_and_as_calm_replaces_the_photo(many: Figures, one: Figures, wanted: bool) -> None:
    assert is_better(many, one) is wanted


@pytest.mark.timeout(240)
def test_the_command_writes_references_figures_a_record_and_a_bundle(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    persona = room / "eileen"
    before = read_record(persona / "consent.json")
    options = [str(room / "faces"), "--persona", str(persona), "--trust", str(room / "trust"), "--frames", "12"]
    assert main(options) == 0
    note = json.loads((persona / "references" / "references.json").read_text())
    pictures = sorted((persona / "references").glob("*.png"))
    assert note["count"] == len(pictures) >= 1
    assert note["is_used"] == note["is_better"] == is_better(*(Figures(**note["figures"][w]) for w in ("many", "one")))
    assert note["figures"]["one"]["ssim"] > 0.5
    assert ("play besides" in capsys.readouterr().out) == note["is_used"]

    trust = TrustStore(room / "trust").read()
    Persona.load("eileen", "Eileen", persona / "still.png", persona / "consent.json", tuple(pictures)).check(
        "live", trust
    )
    bundle = Bundle.load(persona / "bundle")
    (info,) = bundle.personas
    assert info.title == "Eileen C." and len(info.more) == (len(pictures) if note["is_used"] else 0)
    Persona.of(info).check("live", trust)
    sources = {source.sha256 for source in Faceset.open(room / "faces").sources.values()}
    assert sources <= set(bundle.manifest.training["sources"]), "what it must not be judged by"
    assert before.digest in read_record(persona / "consent.json").consent.evidence["extends"]


@pytest.mark.timeout(240)
def test_references_play_only_where_their_note_says_so(room: Path) -> None:
    persona, bundle = room / "eileen", Bundle.load(default_bundle())
    references = persona / "references"
    if not (references / "00.png").is_file():
        pytest.skip("the command's test wrote none")
    kept = (references / "references.json").read_bytes()
    try:
        pictures = []
        for is_used in (False, True):
            (references / "references.json").write_text(json.dumps({"is_used": is_used}))
            assert bool(further_references(persona)) is is_used
            model = FaceSwapper(settings=SwapSettings("e"), renderers={"e": photo_persona(persona, bundle)})
            model.warm_up()
            session = model.open_session()
            frame = turned(22)
            pictures.append(session.process(Frame(frame, 0, 0.0)).image)
            session.close()
        assert not np.array_equal(*pictures)
        (references / "references.json").write_text("{torn")
        assert further_references(persona) == ()
    finally:
        (references / "references.json").write_bytes(kept)


def test_whoever_revokes_a_record_revokes_those_that_extend_it(room: Path, tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "trust")
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    sign_files(tmp_path / "consent.json", "eileen", [tmp_path / "a.png"], store.folder)
    first = read_record(tmp_path / "consent.json")
    second = extended(first, [tmp_path / "b.png"], store.signing_key())
    third = extended(second, [], store.signing_key())
    assert set(first.consent.reference) < set(second.consent.reference) == set(third.consent.reference)
    assert third.consent.uses == first.consent.uses and third.consent.not_after == first.consent.not_after
    for record in (first, second, third):
        check(record, "live", store.read())
    store.revoke(first.digest, first.consent.not_before)
    for record in (first, second, third):
        with pytest.raises(ConsentError, match="was revoked"):
            check(record, "live", store.read())
