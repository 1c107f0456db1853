"""A face streamed through a real TURN server, which is all that the browser may connect by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import BrowserContext

from benchmarks.harness.live_page import LivePage
from tests.browser.conftest import RunningApp
from tests.browser.test_relay_choice import assert_swaps
from tests.support.coturn import Coturn

pytestmark = pytest.mark.timeout(600)  # a page, a browser and two servers, perhaps on a busy machine

# Keeps the page's connections where a test finds them.
KEEP_CONNECTIONS = """
const Plain = window.RTCPeerConnection;
window.connections = [];
window.RTCPeerConnection = class extends Plain {
  constructor(...settings) { super(...settings); window.connections.push(this); }
};
"""
SELECTED_PAIR = """async () => {
  const stats = new Map(await window.connections.at(-1).getStats());
  const transport = [...stats.values()].find((each) => each.type === "transport");
  const pair = stats.get(transport.selectedCandidatePairId);
  return [stats.get(pair.localCandidateId), window.connections.at(-1).getConfiguration().iceTransportPolicy, pair];
}"""


def test_face_is_swapped_through_coturn_alone(
    serve: Callable[..., RunningApp],
    open_browser: Callable[..., BrowserContext],
    tiny_bundle: Path,
    astronaut_clip: Path,
    coturn: Coturn,
    tmp_path: Path,
) -> None:
    app = serve(
        UNDERSTUDY_BUNDLE=str(tiny_bundle),
        UNDERSTUDY_TURN_URLS=",".join(coturn.settings.urls),
        UNDERSTUDY_TURN_SECRET=coturn.settings.secret,
        UNDERSTUDY_ICE_POLICY="relay",
    )
    given_before, passed_before = coturn.allocations(), coturn.relayed_packets()
    live = LivePage(open_browser(astronaut_clip), app.address, script=KEEP_CONNECTIONS)
    assert_swaps(live)
    live.screenshot(tmp_path / "live-turn.png")
    candidate, policy, pair = cast(tuple[dict[str, Any], str, dict[str, Any]], live.ask(SELECTED_PAIR))
    assert policy == candidate["candidateType"] == "relay", candidate
    assert pair["packetsReceived"] > 50 and pair["packetsSent"] > 50
    assert coturn.allocations() > given_before
    live.stop()
    for _ in range(200):  # coturn tells of a session once it has ended
        if coturn.relayed_packets() >= passed_before + 100:
            return
        live.wait(0.1)
    pytest.fail(f"coturn passed {coturn.relayed_packets() - passed_before} packets on")
