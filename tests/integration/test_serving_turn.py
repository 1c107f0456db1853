"""A real coturn takes the app's short-lived credentials, and nothing else."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest
from aioice import stun, turn

from serving.turn import TTL_S, TurnSettings, ice_servers, render_coturn
from tests.ports import free_port
from tests.waiting import wait_until

SETTINGS = TurnSettings(("turn:127.0.0.1:3478",), "a-secret-of-twenty-one")


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if shutil.which("turnserver") is None:
        pytest.skip("needs coturn (apt install coturn)")
    directory = tmp_path_factory.mktemp("coturn")
    port = free_port()
    text = render_coturn(SETTINGS, "example.org", "127.0.0.1", port=port, is_loopback=True)
    files = f"pidfile={directory}/pid\nlog-file={directory}/log\nsimple-log\nno-tls\nno-dtls\nuserdb={directory}/db\n"
    (directory / "coturn.conf").write_text(text + files)
    command = ["turnserver", "-c", str(directory / "coturn.conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory)
    try:
        wait_until(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def relayed(port: int, username: str, password: str) -> str:
    """Send a datagram through an allocation to a local peer; gives what the peer got."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[bytes] = loop.create_future()

    class Peer(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            got.set_result(data)

    peer, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
    try:
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=("127.0.0.1", port),
            username=username,
            password=password,
            transport="tcp",
        )
        transport.sendto(b"a frame", peer.get_extra_info("sockname"))
        data = await asyncio.wait_for(got, 5)
        transport.close()
        return data.decode()
    finally:
        peer.close()


def test_fresh_credentials_relay_and_stale_or_forged_ones_do_not(coturn: int) -> None:
    async def session() -> None:
        (fresh,) = ice_servers(SETTINGS)
        assert await relayed(coturn, fresh["username"], fresh["credential"]) == "a frame"
        (stale,) = ice_servers(SETTINGS, now_s=1_700_000_000 - TTL_S)
        forged = (fresh["username"].replace(":", "0:"), fresh["credential"])
        for username, credential in ((stale["username"], stale["credential"]), forged):
            with pytest.raises(stun.TransactionFailed, match="401"):
                await relayed(coturn, username, credential)

    asyncio.run(session())
