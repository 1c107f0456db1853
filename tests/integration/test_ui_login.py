"""Logging in: off by default; where it is configured, nobody sees a page before."""

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ui.parts import login

AUTH = {"client_id": "understudy", "redirect_uri": "http://localhost:1/oauth2callback"}


def main_page() -> None:
    from ui.parts import login

    if login.must_log_in():
        login.login_page()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_function(main_page, default_timeout=30)


def test_without_a_configuration_nobody_is_asked(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert list(page.button) == []


def test_with_a_configuration_the_login_is_all_there_is_to_do(page: AppTest) -> None:
    page.secrets["auth"] = AUTH
    page.run()
    assert not page.exception
    assert [button.label for button in page.button] == ["Log in"]


def test_a_half_configured_login_lets_nobody_in_and_says_who_can_help(page: AppTest) -> None:
    page.secrets["auth"] = AUTH  # no cookie_secret, no provider
    page.run()
    page.button(key="log_in").click().run()
    assert not page.exception
    assert "Nobody can log in yet" in page.error[0].value
    assert "docs/app.md" in page.error[0].value


def test_secrets_that_cannot_be_read_let_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "secrets.toml"
    broken.write_text("[auth\n")
    monkeypatch.setattr(st.secrets, "load_if_toml_exists", lambda: False)
    monkeypatch.setattr(st, "get_option", lambda name: [str(broken)])
    assert login.is_configured()
    broken.unlink()
    assert not login.is_configured()
