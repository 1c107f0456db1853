import cv2
import numpy as np
import pytest

from understudy.swap.gaze import EYES, Eyes
from understudy.swap.mesh_warp import ReferenceFace, ReferenceWarp
from understudy.swap.one_shot import (
    CONTROL_PX,
    DriverFace,
    OneShotRenderer,
    PaintOptions,
    Target,
    lit_by,
    soft_coverage,
)
from understudy.swap.relight import LIGHT_GRID, Relight, quotient
from understudy.swap.skin import skin_at_edge
from understudy.vision.align import mean_mesh
from understudy.vision.face import resized_mesh
from understudy.vision.iris import EyePair
from understudy.vision.mesh import INNER_MOUTH, LEFT_EYE

SIZE = 256
MESH = mean_mesh() * np.float32(SIZE)
CONTROL = resized_mesh(MESH, CONTROL_PX / SIZE)
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def picture(seed=0, size=SIZE):
    """A smooth, coloured picture with fine stripes."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.uniform(60, 190, (5, 5, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(base, 0, 255).astype(np.uint8)


def reference(seed=0):
    return ReferenceFace(picture(seed), MESH)


class Says:
    """A mixer that answers the same everywhere."""

    def __init__(self, opacity):
        self.opacity = opacity

    def mix(self, inputs):
        assert inputs.shape[1:] == (CONTROL_PX, CONTROL_PX, 7) and inputs.dtype == np.float32
        assert inputs.min() >= 0 and inputs.max() <= 1
        return np.full((len(inputs), CONTROL_PX, CONTROL_PX), self.opacity, np.float32)


# ---- mesh warp --------------------------------------------------------------------------------------------------


def test_own_mesh_maps_each_pixel_to_itself():
    positions, covered = ReferenceWarp(reference(), CONTROL_PX).map(CONTROL)
    y, x = np.nonzero(covered)
    assert len(x) > 6000
    wanted = np.stack([x, y], axis=1) * 2 + 0.5  # pixel centres of a picture twice as large
    assert np.abs(positions[y, x] - wanted).max() < 0.05


def test_moved_mesh_moves_the_map_and_leaves_no_holes():
    shifted = CONTROL + np.float32([3, -2, 0])
    positions, covered = ReferenceWarp(reference(), CONTROL_PX).map(shifted)
    y, x = np.nonzero(covered)
    assert np.abs(positions[y, x] - (np.stack([x - 3, y + 2], axis=1) * 2 + 0.5)).max() < 0.05
    filled = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    assert np.count_nonzero(filled != covered) < 0.01 * np.count_nonzero(covered)


def test_wide_open_mouth_leaves_no_holes():
    gaping = CONTROL.copy()
    gaping[:, 1] += np.where(CONTROL[:, 1] > CONTROL[14, 1] - 0.5, 12, 0)
    _, covered = ReferenceWarp(reference(), CONTROL_PX).map(gaping)
    mouth = covered[70:110, 40:88]
    assert np.count_nonzero(mouth) == mouth.size


def test_mirrored_mesh_faces_away_and_is_not_drawn():
    away = CONTROL.copy()
    away[:, 0] = CONTROL_PX - away[:, 0]
    _, covered = ReferenceWarp(reference(), CONTROL_PX).map(away)
    assert np.count_nonzero(covered) < 0.02 * covered.size


def test_fine_stripes_do_not_alias_when_the_face_is_small():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    warp = ReferenceWarp(ReferenceFace(stripes, mean_mesh() * np.float32(512)), CONTROL_PX)
    y, x = np.mgrid[0:CONTROL_PX, 0:CONTROL_PX].astype(np.float32)
    small = warp.sampled(np.dstack([x, y]) * np.float32(4) + np.float32(1.5), 4.0)
    assert small[..., :3].std() < 4 and abs(small[..., :3].mean() - 127.5) < 3


# ---- light ------------------------------------------------------------------------------------------------------


def test_quotient_is_what_the_light_was_multiplied_by():
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    face = np.full((CONTROL_PX, CONTROL_PX, 3), (80, 100, 120), np.uint8)
    driver = np.clip(face * np.float32([0.5, 1.0, 1.5]), 0, 255).astype(np.uint8)
    light = quotient(driver, face, ones)
    assert light.shape == (LIGHT_GRID, LIGHT_GRID, 3)
    assert np.allclose(light, [0.5, 1.0, 1.5], atol=0.02)


def test_light_of_what_is_masked_does_not_count():
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    face = np.full((CONTROL_PX, CONTROL_PX, 3), 100, np.uint8)
    driver = face.copy()
    driver[:, : CONTROL_PX // 4] = 255  # a white hand at the left
    ones[:, : CONTROL_PX // 4] = 0
    assert np.allclose(quotient(driver, face, ones)[:, LIGHT_GRID // 3 :], 1, atol=0.02)


def test_grey_camera_takes_colour_out_and_a_colourful_one_adds_none():
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    grey = np.full((CONTROL_PX, CONTROL_PX, 3), 100, np.uint8)
    coloured = np.full((CONTROL_PX, CONTROL_PX, 3), (60, 100, 140), np.uint8)
    plain = np.ones((LIGHT_GRID, LIGHT_GRID, 3), np.float32)
    assert Relight(grey, coloured).saturation(plain, ones) == 0
    assert Relight(coloured, grey).saturation(plain, ones) == 1


# ---- eyes -------------------------------------------------------------------------------------------------------


def opened(times=2.5):
    """The mesh with its eyes as open as they come, so that an iris has where to go."""
    mesh = MESH.copy()
    for ring, *_ in EYES:
        mesh[list(ring), 1] = (mesh[list(ring), 1] - mesh[list(ring), 1].mean()) * times + mesh[list(ring), 1].mean()
    return mesh


CENTRES = np.stack([MESH[list(ring), :2].mean(0) for ring, *_ in EYES]).astype(np.float32)


def eyed():
    """A bright picture with two dark irises, on wide open lids."""
    face = np.full((SIZE, SIZE, 3), 220, np.uint8)
    for centre in CENTRES:
        where = tuple(int(v) for v in np.rint(centre * 16))
        cv2.circle(face, where, round(16 * 5.6), (20, 40, 60), -1, cv2.LINE_AA, 4)
    return ReferenceFace(face, opened())


def dark_middle(face, at):
    """Where the dark disc near a place has its middle, px from there, and how many dark px there are."""
    x, y = (int(v) for v in np.rint(at))
    dark = 220.0 - face[y - 12 : y + 13, x - 12 : x + 13].mean(2)
    dark[dark < 100] = 0
    rows, columns = np.mgrid[-12:13, -12:13]
    total = dark.sum() + 1e-6
    return np.array([(columns * dark).sum(), (rows * dark).sum()]) / total + [x, y] - at, np.count_nonzero(dark)


def test_iris_is_lifted_off_and_laid_where_the_driver_looks():
    reference = eyed()
    eyes = Eyes(reference, CENTRES)
    for centre in CENTRES:
        assert dark_middle(eyes.whites, centre)[1] == 0, "the whites show no iris"
    for aside in (np.float32([5, 0]), np.float32([-9, 1]), np.float32([0, 2])):
        face = eyes.whites.copy()
        eyes.look(face, reference.mesh, CENTRES + aside)
        for centre in CENTRES + aside:
            found, count = dark_middle(face, centre)
            assert np.abs(found).max() < 1.0 and count > 40
    twice = cv2.resize(eyes.whites, None, fx=2, fy=2)
    eyes.look(twice, reference.mesh * 2, CENTRES * 2)
    found, count = dark_middle(twice, CENTRES[0] * 2)
    assert np.abs(found).max() < 1.5 and count > 160, "an eye twice as wide has an iris twice as wide"


def test_gaze_of_the_photo_shows_the_photo_and_shut_eyes_show_no_iris():
    reference = eyed()
    eyes = Eyes(reference, CENTRES)
    for irises in (CENTRES, None):
        same = eyes.whites.copy()
        eyes.look(same, reference.mesh, irises)
        error = np.abs(same.astype(int) - reference.image).mean(2)
        inside = np.zeros((SIZE, SIZE), np.uint8)
        for ring, *_ in EYES:
            cv2.fillPoly(inside, [np.rint(reference.mesh[list(ring), :2]).astype(np.int32)], (1,))
        assert error[inside == 0].max() < 60 and error.mean() < 0.5
        assert np.median(error[inside > 0]) < 12
    shut = opened(0)
    asleep = eyes.whites.copy()
    eyes.look(asleep, shut, CENTRES)
    assert np.abs(asleep.astype(int) - eyes.whites).mean() < 0.2


# ---- the whole --------------------------------------------------------------------------------------------------


def driver_of(image, mesh=CONTROL):
    return DriverFace(cv2.resize(image, (CONTROL_PX, CONTROL_PX), interpolation=cv2.INTER_AREA), mesh)


def whole(size=SIZE):
    zoom = CONTROL_PX / size
    matrix = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]], np.float32)
    return Target(matrix, size, size)


def test_persona_in_its_own_place_is_its_own_picture():
    """Reference and driver are one: what is painted is the photo, to within two levels."""
    one = reference(2)
    painted = OneShotRenderer(one).paint(driver_of(one.image), whole())
    seen = painted[..., 3] > 250
    assert np.count_nonzero(seen) > 0.25 * seen.size
    assert np.abs(painted[..., :3].astype(int) - one.image)[seen].mean() < 2


def test_painted_at_the_size_that_is_asked_for():
    one = reference(2)
    renderer, driver = OneShotRenderer(one), driver_of(one.image)
    small, large = renderer.paint(driver, whole(64)), renderer.paint(driver, whole(512))
    assert small.shape == (64, 64, 4) and large.shape == (512, 512, 4)
    shrunk = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    seen = (small[..., 3] > 250) & (shrunk[..., 3] > 250)
    assert np.abs(small[..., :3].astype(int) - shrunk[..., :3])[seen].mean() < 2


def test_inner_mouth_is_the_drivers():
    one = reference(2)
    gaping = CONTROL.copy()
    gaping[:, 1] += np.where(CONTROL[:, 1] > CONTROL[14, 1] - 0.5, 8, 0)
    painted = OneShotRenderer(one).paint(driver_of(one.image, gaping), whole())
    x, y = (resized_mesh(gaping, SIZE / CONTROL_PX)[list(INNER_MOUTH), :2].mean(0)).astype(int)
    assert painted[y, x, 3] < 10


@pytest.mark.parametrize(("options", "wanted"), [(PaintOptions(), 250), (PaintOptions(own_eyes=True), 30)])
def test_eyes_are_whose_was_asked_for(options, wanted):
    wide = CONTROL.copy()
    for ring, *_ in EYES:
        middle = wide[list(ring), 1].mean()
        wide[list(ring), 1] = (wide[list(ring), 1] - middle) * 3 + middle
    painted = OneShotRenderer(reference(2)).paint(driver_of(picture(3), wide), whole(), options)
    x, y = (resized_mesh(wide, 2)[list(LEFT_EYE), :2].mean(0)).astype(int)
    assert (painted[y, x, 3] >= 250) == (wanted == 250) and (wanted == 250 or painted[y, x, 3] <= wanted)


def test_network_says_how_opaque_and_a_setting_overrules_it():
    one = reference(2)
    renderer = OneShotRenderer(one, mixer=Says(0.5))
    centre = (SIZE // 2, SIZE // 2)
    assert abs(int(renderer.paint(driver_of(one.image), whole())[(*centre, 3)]) - 128) <= 2
    asked = renderer.paint(driver_of(one.image), whole(), PaintOptions(keep_occluders=False))
    assert asked[(*centre, 3)] >= 250


def test_coverage_ends_inside_the_mesh_and_before_the_crops_edge():
    covered = np.full((CONTROL_PX, CONTROL_PX), 255, np.uint8)
    coverage = soft_coverage(covered)
    assert coverage[64, 64] == 1 and coverage[0].max() < 0.1 and coverage[:, -1].max() < 0.1


def test_hair_over_the_photos_temple_is_left_out_and_skin_is_not():
    skin = np.full((SIZE, SIZE, 3), (120, 150, 190), np.uint8)
    bare = skin_at_edge(ReferenceFace(skin, MESH))
    assert bare.min() > 0.95
    lock = skin.copy()
    temple = MESH[127, :2]
    cv2.circle(lock, tuple(int(v) for v in temple), 14, (20, 25, 30), -1)
    shown = skin_at_edge(ReferenceFace(lock, MESH))
    x, y = (temple / 2 + [2, 0]).astype(int)
    assert shown[y, x] < 0.3 and shown[64, 64] > 0.95


def test_lids_of_a_shut_eye_touch_and_those_of_an_open_one_stay():
    along = np.linspace(0, 20, 9)
    lower = np.stack([along, np.zeros(9)], axis=1)

    def pair(opening):
        upper = np.stack([along[1:8], np.full(7, -20 * opening)], axis=1)
        lids = np.concatenate([lower, upper]).astype(np.float32)
        return EyePair(np.zeros((2, 2), np.float32), np.stack([lids, lids]))

    assert np.abs(pair(0.12).shut().lids[:, 9:, 1]).max() == 0
    assert np.array_equal(pair(0.3).shut().lids, pair(0.3).lids)
    half = pair(0.19).shut().lids[0, 9:, 1]
    assert -20 * 0.19 < half.min() == half.max() < 0
    narrow = pair(0.19)._replace(open_at=(0.15, 0.15))
    assert np.array_equal(narrow.shut().lids, narrow.lids), "an eye that never opens wider is open"


def test_a_triangle_that_is_folded_in_the_photo_leaves_no_pinhole():
    folded = MESH.copy()
    brow = 105  # pulled over its neighbours
    folded[brow, :2] += [0, 9]
    positions, covered = ReferenceWarp(ReferenceFace(picture(2), folded), CONTROL_PX).map(CONTROL)
    inside = cv2.erode(covered, np.ones((9, 9), np.uint8)) > 0
    assert positions[inside].min() > 0, "every pixel inside the face comes from somewhere in the photo"


def test_pixels_beside_a_narrow_triangle_come_from_nearby():
    """The map never leaps: neighbours inside the face come from neighbouring places, within a triangle's reach."""
    narrow = CONTROL.copy()
    narrow[[105, 66, 107], 1] = narrow[105, 1]  # a brow drawn onto one line
    positions, covered = ReferenceWarp(reference(2), CONTROL_PX).map(narrow)
    inside = cv2.erode(covered, np.ones((5, 5), np.uint8)) > 0
    away = np.linalg.norm(positions - (np.dstack(np.meshgrid(*[np.arange(CONTROL_PX)] * 2)) * 2 + 0.5), axis=2)
    assert away[inside].max() < 40


def test_folded_lids_leave_no_pixel_behind():
    """Eyes far wider open than the photo's fold the lids above; the map stays smooth there."""
    wide = CONTROL.copy()
    for ring in EYES:
        points = list(ring[0])
        middle = CONTROL[points].mean(0)
        wide[points, 1] = middle[1] + (CONTROL[points, 1] - middle[1]) * 2.2
    positions, covered = ReferenceWarp(reference(3), CONTROL_PX).map(wide)
    lids = np.zeros_like(covered)
    for ring in EYES:
        cv2.fillPoly(lids, [np.rint(wide[list(ring[0]), :2]).astype(np.int32)], 255)
    near = (cv2.dilate(lids, np.ones((9, 9))) > 0) & (covered > 0)
    rough = np.abs(cv2.Laplacian(positions[..., 1], cv2.CV_32F, ksize=1))
    assert np.percentile(rough[near], 99.5) < 10


def test_highlights_find_room_below_white():
    """A shiny nose in a bright, flat light: the mean follows, and nothing is cut off at white."""
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    shiny = np.full((CONTROL_PX, CONTROL_PX, 3), 90, np.uint8)
    cv2.ellipse(shiny, (64, 64), (3, 9), 0, 0, 360, (150, 150, 150), -1)
    cv2.ellipse(shiny, (30, 64), (3, 9), 0, 0, 360, (40, 40, 40), -1)
    relight = Relight(np.full_like(shiny, 215), shiny)
    lighting = relight.lighting(relight.quotient(ones))
    lit = lit_by(shiny, lighting)
    assert len(lighting.tones) == 2
    assert 225 < np.median(lit[60:68, 63:66]) < 255, "the highlight is bright, not burnt"
    assert lit[20:40, 30:98].mean() == pytest.approx(215, rel=0.04)
    assert np.median(lit[60:68, 29:32]) < 215 - 1.1 * 50, "what is dark keeps its contrast"


def test_dark_skin_in_bright_light_keeps_its_contrast():
    """Three times as bright: the mean follows, fine structure grows by the gain's limit alone."""
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    rng = np.random.default_rng(0)
    dark = np.clip(50 + rng.normal(0, 6, (CONTROL_PX, CONTROL_PX, 3)), 0, 255).astype(np.uint8)
    bright = np.full_like(dark, 150)
    relight = Relight(bright, dark)
    ((gain, lift),) = relight.lighting(relight.quotient(ones)).tones
    middle = np.s_[8:24, 8:24]
    assert gain.max() <= 1.25
    assert (gain * 50 + lift)[middle].mean() == pytest.approx(150, rel=0.03)
    dim = Relight(dark, bright)
    ((gain, lift),) = dim.lighting(dim.quotient(ones)).tones
    assert not lift.any(), "what is darkened is multiplied"


def test_black_brow_on_brown_skin_stays_black_on_pale_skin():
    """The skin takes the driver's tone; a brow has none, and neither gets grey nor blue."""
    brown = np.empty((CONTROL_PX, CONTROL_PX, 3), np.uint8)
    brown[:] = (55, 75, 115)
    cv2.rectangle(brown, (50, 60), (78, 63), (22, 22, 24), -1)
    relight = Relight(np.full_like(brown, (195, 205, 225)), brown)
    ones = np.ones((CONTROL_PX, CONTROL_PX), np.float32)
    lit = lit_by(brown, relight.lighting(relight.quotient(ones))).astype(np.float32)
    brow, skin = lit[61:63, 54:74].reshape(-1, 3), lit[20:44, 30:98].reshape(-1, 3)
    assert skin.mean(0) == pytest.approx([195, 205, 225], rel=0.05)
    assert brow.mean() < 90, "black, not grey"
    assert brow.mean(0)[0] - brow.mean(0)[2] < 15, "and not blue"
