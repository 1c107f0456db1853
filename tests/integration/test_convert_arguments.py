"""Whatever is typed, the command ends with a sentence and a status of 0, 1, 2 or 75."""

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS
from understudy.convert import main
from understudy.personas import main as list_personas

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_NUMBER = st.one_of(st.floats().map(str), st.integers(-9, 10**9).map(str), _TEXT)
_NAME = st.text(string.ascii_letters + "%:*?[]é \U0001f3d6", min_size=1, max_size=12)
_VALUES = {
    "--persona": st.one_of(st.sampled_from(["ada", "BEN", ""]), _TEXT),
    "--strength": _NUMBER,
    "--colour-match": _NUMBER,
    "--shape": _NUMBER,
    "--start": _NUMBER,
    "--end": _NUMBER,
    "--quality": _NUMBER,
    "--height": _NUMBER,
    "--threads": st.one_of(st.just("2"), _TEXT),
    "--codec": st.one_of(st.sampled_from(["h264", "vp9", "prores"]), _TEXT),
    "--map": _TEXT,
    "--photo": _NAME,
    "--consent": _NAME,
    "--faces": _TEXT,
    "--preview": _NAME,
}
_CONTENT = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypisom", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X"]
    ),
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_arguments_end_with_a_sentence(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(room / "trust"))
    monkeypatch.setenv("UNDERSTUDY_WORK", str(room / "work"))
    monkeypatch.chdir(tmp_path)
    suffix = data.draw(st.sampled_from([".mp4", ".jpg", ".png", ".gif", ".webp", ".mov", ".heic", ""]))
    source = Path("in" + suffix)
    source.write_bytes(data.draw(_CONTENT))
    target = data.draw(st.sampled_from(["out.mp4", "out.jpg", "nowhere/out.mp4", "out.xyz", "in.mp4", "out.webm"]))
    arguments = [str(source), target, "--bundle", str(room / "bundle")]
    for option in data.draw(st.lists(st.sampled_from(sorted(_VALUES)), max_size=4, unique=True)):
        arguments += [option, data.draw(_VALUES[option])]
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr().err
    assert status in (0, 1, 2, 75)
    assert "Traceback" not in said and "nobody foresaw" not in said
    assert said.strip() or status == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bundle=_NAME)
def test_any_bundle_name_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    assert list_personas(["--bundle", str(tmp_path / bundle)]) == 2
    assert capsys.readouterr().err.strip().endswith((".", "path"))
