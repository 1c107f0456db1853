"""A real coturn takes the app's short-lived credentials, and nothing else."""

import asyncio

import pytest
from aioice import stun, turn

from serving.turn import TTL_S, ice_servers
from tests.support.coturn import Coturn


async def relayed(port: int, username: str, password: str) -> str:
    """Send a datagram through an allocation to a local peer; returns what the peer got."""
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


def test_fresh_credentials_relay_and_stale_or_forged_ones_do_not(coturn: Coturn) -> None:
    async def session() -> None:
        (fresh,) = ice_servers(coturn.settings)
        assert await relayed(coturn.port, fresh["username"], fresh["credential"]) == "a frame"
        (stale,) = ice_servers(coturn.settings, now_s=1_700_000_000 - TTL_S)
        forged = (fresh["username"].replace(":", "0:"), fresh["credential"])
        for username, credential in ((stale["username"], stale["credential"]), forged):
            with pytest.raises(stun.TransactionFailed, match="401"):
                await relayed(coturn.port, username, credential)

    asyncio.run(session())
