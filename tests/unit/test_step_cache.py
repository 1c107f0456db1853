"""A release's step runs when something it depends on has changed, goes on where it was killed, and else is skipped."""

import json
from pathlib import Path

import pytest

from pipelines.code_digest import code_digest, reachable
from pipelines.step_cache import Step, hash_contents, read_log, run_step
from pipelines.steps import local

NO_CODE: tuple[str, ...] = ()


def write_twice(folder: Path) -> None:
    """A resumable step: its first call dies half-way."""
    with (folder / "lines.txt").open("a") as file:
        file.write("line\n")
    if (folder / "lines.txt").read_text() == "line\n":
        raise KeyboardInterrupt


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    return folder


def test_an_unchanged_step_is_skipped_and_its_result_stands_where_it_is_wanted(source: Path, tmp_path: Path) -> None:
    made: list[Path] = []

    def work(folder: Path) -> None:
        made.append(folder)
        (folder / "result.txt").write_text("made")

    step = Step("copy", NO_CODE, {"source": [source]}, {"n": 1})
    first = run_step(step, tmp_path / "one", tmp_path / "cache", work)
    second = run_step(step, tmp_path / "two", tmp_path / "cache", work)
    assert (first.is_skipped, second.is_skipped, len(made)) == (False, True, 1)
    assert (tmp_path / "two" / "result.txt").read_text() == "made"
    assert [run.is_skipped for run in read_log(tmp_path / "cache")] == [False, True]
    assert read_log(tmp_path / "cache", since=1) == [second]


@pytest.mark.parametrize("change", ["input", "name", "setting"])
def test_a_changed_step_runs_and_says_what_changed(source: Path, tmp_path: Path, change: str) -> None:
    step = Step("copy", NO_CODE, {"source": [source]}, {"n": 1})
    run_step(step, tmp_path / "out", tmp_path / "cache", lambda folder: None)
    if change == "input":
        (source / "a.txt").write_text("b")
    elif change == "name":
        (source / "a.txt").rename(source / "b.txt")
    else:
        step = Step("copy", NO_CODE, {"source": [source]}, {"n": 2})
    run = run_step(step, tmp_path / "out", tmp_path / "cache", lambda folder: None)
    assert not run.is_skipped
    assert run.why == ("changed: setting n" if change == "setting" else "changed: input source")


def test_an_earlier_result_is_found_again_when_a_change_is_taken_back(source: Path, tmp_path: Path) -> None:
    def run(content: str) -> bool:
        (source / "a.txt").write_text(content)
        step = Step("copy", NO_CODE, {"source": [source]}, {})
        return run_step(step, tmp_path / "out", tmp_path / "cache", lambda f: None).is_skipped

    assert [run("a"), run("b"), run("a")] == [False, False, True]


def test_a_killed_step_goes_on_if_it_can_and_starts_over_if_not(tmp_path: Path) -> None:
    for is_resumable, expected in ((True, "line\nline\n"), (False, "line\n")):
        step = Step(f"resumable-{is_resumable}", NO_CODE, {}, {}, is_resumable)
        with pytest.raises(KeyboardInterrupt):
            run_step(step, tmp_path / "out", tmp_path / "cache", write_twice)
        if is_resumable:
            run = run_step(step, tmp_path / "out", tmp_path / "cache", write_twice)
            assert run.why == "it was stopped before its end"
        else:
            with pytest.raises(KeyboardInterrupt):
                run_step(step, tmp_path / "out", tmp_path / "cache", write_twice)
        kept = next((tmp_path / "cache" / step.name).glob("*/out/lines.txt"))
        assert kept.read_text() == expected


def test_a_result_is_replaced_at_its_place_not_where_its_link_leads(tmp_path: Path) -> None:
    out = tmp_path / "results" / "copy"
    for number in (1, 1, 2, 1):
        step = Step("copy", NO_CODE, {}, {"n": number})
        run_step(step, local(str(out)), tmp_path / "cache", lambda folder, n=number: (folder / f"{n}").touch())
        assert out.is_symlink() and [path.name for path in out.iterdir()] == [str(number)]
    assert len(list((tmp_path / "cache" / "copy").glob("*/out"))) == 2


def test_a_result_that_does_not_hold_any_more_is_made_again(tmp_path: Path) -> None:
    registry: set[str] = set()

    def work(folder: Path) -> None:
        (folder / "version.txt").write_text(f"v{len(registry)}")
        registry.add(f"v{len(registry)}")

    def still_holds(folder: Path) -> bool:
        return (folder / "version.txt").read_text() in registry

    step, places = Step("register", NO_CODE, {}, {}), (tmp_path / "out", tmp_path / "cache")
    run_step(step, *places, work, still_holds)
    assert run_step(step, *places, work, still_holds).is_skipped
    registry.clear()
    assert run_step(step, *places, work, still_holds).why == "what it made does not hold any more"


def test_without_a_cache_a_step_always_runs_in_its_place(tmp_path: Path) -> None:
    step = Step("copy", NO_CODE, {}, {})
    for _ in range(2):
        run = run_step(step, tmp_path / "out", None, lambda folder: (folder / "x").touch())
        assert not run.is_skipped and (tmp_path / "out" / "x").is_file()
    assert not (tmp_path / "out").is_symlink()


def test_contents_count_with_their_places_but_hidden_files_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")
    before = hash_contents([folder])
    (folder / ".lock").touch()
    assert hash_contents([folder]) == before
    (folder / "sub" / "a").rename(folder / "a")
    assert hash_contents([folder]) != before
    assert len({hash_contents(paths) for paths in ([], [folder], [folder / "a"], [tmp_path / "none"])}) == 4


def test_code_is_what_a_module_can_reach(tmp_path: Path) -> None:
    package = tmp_path / "training"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("import os\n\n\ndef f():\n    from training import two\n")
    (package / "two.py").write_text("from training.three import x\n")
    (package / "three.py").write_text("x = 1\n")
    (package / "four.py").write_text("y = 2\n")
    names = {path.name for path in reachable(["training.one"], tmp_path)}
    assert names == {"__init__.py", "one.py", "two.py", "three.py"}
    before = code_digest(["training.one"], tmp_path)
    (package / "four.py").write_text("y = 3\n")
    assert code_digest(["training.one"], tmp_path) == before
    (package / "three.py").write_text("x = 2\n")
    assert code_digest(["training.one"], tmp_path) != before
    with pytest.raises(FileNotFoundError, match=r"training\.five must be a module"):
        code_digest(["training.five"], tmp_path)


def test_what_a_key_was_made_of_can_be_read(tmp_path: Path) -> None:
    run_step(Step("copy", NO_CODE, {}, {"n": 1}), tmp_path / "out", tmp_path / "cache", lambda folder: None)
    (note,) = (tmp_path / "cache" / "copy").glob("*/step.json")
    assert set(json.loads(note.read_text())["parts"]) == {"code", "setting n"}


def test_package_data_is_code(tmp_path: Path) -> None:
    """A new mean mesh makes other crops: they must not be mixed with old ones."""
    package = tmp_path / "training"
    package.mkdir()
    (package / "one.py").write_text("x = 1\n")
    (package / "mean.npy").write_bytes(b"old")
    before = code_digest(("training.one",), tmp_path)
    (package / "mean.npy").write_bytes(b"new")
    assert code_digest(("training.one",), tmp_path) != before


def test_what_is_no_longer_consented_to_is_not_taken_from_the_cache(source: Path, tmp_path: Path) -> None:
    revoked: list[str] = []

    def check() -> None:
        if revoked:
            raise PermissionError(revoked[0])

    step = Step("copy", NO_CODE, {"source": [source]}, {})
    for cache in (tmp_path / "cache", None):
        revoked.clear()
        run_step(step, tmp_path / "out", cache, lambda folder: None, check=check)
        revoked.append("taken back")
        with pytest.raises(PermissionError, match="taken back"):
            run_step(step, tmp_path / "out", cache, lambda folder: None, check=check)
