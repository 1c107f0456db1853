"""The Live page's own components in a real browser, without the page: keys, faces, and what they tell the app."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from ui.live import persona_picker, stage

ADDRESS = "http://understudy.localhost/"
PAGE = Path(__file__).with_name("live_components.html")
FACES = [
    {"title": "Yours", "personas": [{"name": "me", "title": "Me", "src": "data:,"}]},
    {
        "title": "Shipped",
        "personas": [{"name": name, "title": name.title(), "src": "data:,"} for name in ("ada", "ben")],
    },
]
STAGE = {
    "token": "t0ken",
    "coverPath": "/cover",
    "still": "",
    "hint": "",
    "aspect": "4 / 3",
    "isCovered": False,
    "isRecording": False,
    "words": {"cover": "Cover", "uncover": "Go on"},
}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    """What the panic key sent."""
    return []


@pytest.fixture
def page(open_browser: Callable[..., BrowserContext], asked: list[dict[str, Any]]) -> Iterator[Page]:
    def answer(route: Route) -> None:
        if route.request.method == "POST":
            asked.append(json.loads(route.request.post_data or ""))
            route.fulfill(json={"covered": asked[-1]["covered"]}, status=500 if asked[-1]["token"] == "gone" else 200)
        else:
            route.fulfill(body=PAGE.read_text(), content_type="text/html")

    page = open_browser(None).new_page()
    page.route(f"{ADDRESS}**", answer)
    page.goto(ADDRESS)
    yield page
    page.unroute_all(behavior="wait")


def mount(page: Page, name: str, module: Any, html: str, data: dict[str, Any]) -> None:
    source = Path(module.__file__).with_suffix(".js").read_text()
    page.evaluate("args => mount(...args)", [name, source, html, data])


def mount_stage(page: Page, **changes: object) -> None:
    mount(page, "bar", stage, stage.bar_html(), {**STAGE, **changes})


def mount_picker(page: Page, chosen: str = "ada") -> None:
    html = '<div class="faces" role="radiogroup"></div>'
    mount(page, "picker", persona_picker, html, {"label": "Persona", "groups": FACES, "chosen": chosen})


def told(page: Page, name: str) -> list[Any]:
    return [value for key, value in page.evaluate("told") if key == name]


def test_faces_are_a_radio_group_with_one_tab_stop_ones_own_first(page: Page) -> None:
    mount_picker(page)
    faces = page.get_by_role("radiogroup", name="Persona").get_by_role("radio")
    assert [face.get_attribute("aria-label") for face in faces.all()] == ["Me", "Ada", "Ben"]
    assert [face.get_attribute("tabindex") for face in faces.all()] == ["-1", "0", "-1"]
    expect(page.get_by_role("radio", name="Ada")).to_be_checked()
    expect(page.get_by_role("radio", name="Ada")).to_be_focused()  # no tab stop before the first question


def test_arrow_keys_move_and_choose_and_go_round(page: Page) -> None:
    mount_picker(page)
    page.get_by_role("radio", name="Ada").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Home", "End"):
        page.keyboard.press(key)
    assert told(page, "persona") == ["ben", "me", "ben", "me", "ben"]
    expect(page.get_by_role("radio", name="Ben")).to_be_focused()
    expect(page.get_by_role("radio", name="Ben")).to_be_checked()


def test_a_choice_made_elsewhere_is_marked_without_drawing_the_faces_anew(page: Page) -> None:
    mount_picker(page)
    before = page.get_by_role("radio", name="Ben").element_handle()
    data = {"label": "Persona", "groups": FACES, "chosen": "ben"}
    page.evaluate("data => document.getElementById('picker').draw(data)", data)
    assert before.get_attribute("aria-checked") == "true"
    assert before.evaluate("face => face.isConnected")


def test_space_covers_at_once_and_a_hasty_second_press_does_not_uncover(
    page: Page, asked: list[dict[str, Any]]
) -> None:
    mount_stage(page)
    page.keyboard.press(" ")
    page.keyboard.press(" ")
    page.wait_for_function("told.length > 0")
    assert asked == [{"token": "t0ken", "covered": True}]
    expect(page.get_by_role("button", name="Cover at once")).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(1100)
    page.keyboard.press(" ")
    page.wait_for_function("told.length > 1")
    assert [each["covered"] for each in asked] == [True, False]


def test_space_covers_whatever_button_has_the_focus_but_types_and_ticks_as_ever(
    page: Page, asked: list[dict[str, Any]]
) -> None:
    mount_stage(page)
    page.locator("#text").press(" ")
    page.locator("#tick").press(" ")
    assert page.locator("#text").input_value() == " " and page.locator("#tick").is_checked()
    assert asked == []
    page.get_by_role("button", name="Record").press(" ")
    page.wait_for_function("told.length > 0")
    assert len(asked) == 1 and told(page, "record") == []


def test_where_the_app_cannot_be_asked_to_cover_the_camera_is_stopped(page: Page) -> None:
    mount_stage(page, token="gone")
    page.keyboard.press(" ")
    page.wait_for_function("told.some(([name]) => name === 'stop')")


def test_digits_choose_letters_press_and_both_can_be_turned_off(page: Page) -> None:
    mount_stage(page)
    mount_picker(page)
    page.keyboard.press("3")
    page.keyboard.press("r")
    page.keyboard.press("9")
    assert told(page, "persona") == ["ben"] and told(page, "record") == [1]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.get_by_role("checkbox", name="Letters and digits").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("1")
    page.keyboard.press("r")
    assert told(page, "persona") == ["ben"] and told(page, "record") == [1]


def test_keys_are_free_again_when_the_page_is_left(page: Page, asked: list[dict[str, Any]]) -> None:
    mount_stage(page)
    page.evaluate("document.getElementById('bar').end()")
    page.keyboard.press(" ")
    page.keyboard.press("r")
    assert asked == [] and page.evaluate("told") == []
