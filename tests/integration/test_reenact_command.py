"""`python -m training.reenact` as the model card gives it: composites of a folder, and pairs of them."""

from pathlib import Path

import cv2

from tests.support.real_faces import astronaut, moved
from tests.support.sheets import bears_label
from training import reenact

LEAST_FACES = 40


def test_composites_of_a_toml_become_personas_with_pairs_and_a_sheet(tmp_path: Path) -> None:
    faces = tmp_path / "faces" / "some"
    faces.mkdir(parents=True)
    for number in range(LEAST_FACES):
        cv2.imwrite(str(faces / f"{number:02d}.jpg"), moved(astronaut(), number / 4 - 5, 1.1 + number / 100))
    toml = tmp_path / "personas.toml"
    toml.write_text('[[persona]]\nname = "ada"\ntitle = "Ada"\nfolder = "some"\nfaces = 40\ncaricature = 1.2\n')
    out = tmp_path / "pairs"
    places = {"--drivers": faces, "--out": out, "--personas": toml, "--faces": faces.parent}
    words = [str(word) for option in places.items() for word in option]
    reenact.run(reenact.parser().parse_args([*words, "--pictures", "6"]))

    pairs = reenact.PairedFaceset(out)
    assert pairs.personas == ["ada"] and pairs.count == 6
    assert pairs.recipe("ada")["kind"] == "composite"
    sheet = cv2.imread(str(out / "sheet.jpg"))
    assert sheet is not None and sheet.std() > 10 and bears_label(sheet)
