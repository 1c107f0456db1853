"""A login by OpenID Connect in a real browser: no page before it, one's own files behind it, and the way out."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from benchmarks.harness.live_page import PATIENCE_MS
from tests.browser.conftest import RunningApp
from tests.support.oidc_provider import CLIENT, oidc_provider

pytestmark = pytest.mark.timeout(300)


def test_pages_open_only_after_the_login_and_close_after_the_logout(
    serve: Callable[..., RunningApp], open_browser: Callable[..., BrowserContext], tiny_bundle: Path, tmp_path: Path
) -> None:
    app = serve(UNDERSTUDY_BUNDLE=str(tiny_bundle), UNDERSTUDY_WORK=str(tmp_path / "work"), HOME=str(tmp_path))
    page = open_browser(None).new_page()
    page.set_default_timeout(PATIENCE_MS)
    with oidc_provider("Nobody") as provider:
        configure(tmp_path, app.address, provider)
        page.goto(f"{app.address}/studio")
        page.get_by_role("button", name="Log in").wait_for()
        assert page.get_by_role("heading", name="Studio").count() == 0
        assert list((tmp_path / "work").glob("viewers/*")) == []

        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Live").wait_for()
        page.get_by_role("link", name="Studio").click()
        page.get_by_text("You have no personas of your own yet").wait_for()
        (own,) = (tmp_path / "work").glob("viewers/*")
        assert own.name.startswith("user-")

        page.get_by_role("link", name="Your login").click()
        page.get_by_text("Logged in as Nobody").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in").wait_for()


def configure(home: Path, address: str, provider: str) -> None:
    """Write what an operator would: the provider and this app's own address."""
    (home / ".streamlit").mkdir()
    (home / ".streamlit" / "secrets.toml").write_text(
        f'[auth]\nredirect_uri = "{address}/oauth2callback"\ncookie_secret = "for this test alone"\n'
        f'client_id = "{CLIENT}"\nclient_secret = "none"\n'
        f'server_metadata_url = "{provider}/.well-known/openid-configuration"\n'
    )
