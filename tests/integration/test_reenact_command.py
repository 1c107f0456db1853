"""`python -m training.reenact` as the model card gives it: composites of a folder, and pairs of them."""

from pathlib import Path

import cv2
import pytest

from tests.support.real_faces import astronaut, moved
from tests.support.sheets import bears_label
from training import reenact
from training.data.drivers import DriverFinder, list_drivers

LEAST_FACES = 40


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), moved(astronaut(), number / 4 - 5, 1.1 + number / 100))
    return folder


def test_other_drivers_on_an_old_out_are_refused_and_the_same_resume(tmp_path: Path) -> None:
    finder = DriverFinder()
    few = list_drivers([pictures(tmp_path / "few", 3)], 1, 99)
    assert reenact.write_drivers(tmp_path / "pairs", few, finder).count == 3
    assert reenact.write_drivers(tmp_path / "pairs", few, finder).count == 3
    more = list_drivers([tmp_path / "few", pictures(tmp_path / "more", 2)], 1, 99)
    with pytest.raises(reenact.PairsError, match="holds pairs of other drivers"):
        reenact.write_drivers(tmp_path / "pairs", more, finder)


def test_a_killed_search_for_drivers_resumes_where_it_was(tmp_path: Path) -> None:
    wanted = list_drivers([pictures(tmp_path / "faces", 4)], 1, 99)

    class Killed(DriverFinder):
        looked, most = 0, 2

        def canvas(self, image):
            if self.looked == self.most:
                raise KeyboardInterrupt
            self.looked += 1
            return super().canvas(image)

    first, second = Killed(), Killed()
    with pytest.raises(KeyboardInterrupt):
        reenact.write_drivers(tmp_path / "pairs", wanted, first)
    assert reenact.write_drivers(tmp_path / "pairs", wanted, second).count == 4
    assert (first.looked, second.looked) == (2, 2), "what was found before is on disk"


def test_composites_of_a_toml_become_personas_with_pairs_and_a_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = pictures(tmp_path / "faces" / "some", LEAST_FACES)
    toml = tmp_path / "personas.toml"
    toml.write_text('[[persona]]\nname = "ada"\ntitle = "Ada"\nfolder = "some"\nfaces = 40\ncaricature = 1.2\n')
    out = tmp_path / "pairs"
    places = {"--drivers": faces, "--out": out, "--personas": toml, "--faces": faces.parent}
    words = [str(word) for option in places.items() for word in option]
    reenact.run(reenact.parser().parse_args([*words, "--pictures", "6"]))
    monkeypatch.setattr(reenact, "everybody", lambda *_: pytest.fail("the average is made once"))
    reenact.run(reenact.parser().parse_args([*words, "--pictures", "6"]))

    pairs = reenact.PairedFaceset(out)
    assert pairs.personas == ["ada"] and pairs.count == 6
    assert pairs.recipe("ada")["kind"] == "composite"
    sheet = cv2.imread(str(out / "sheet.jpg"))
    assert sheet is not None and sheet.std() > 10 and bears_label(sheet)
