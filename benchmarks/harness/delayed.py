"""A network that is far away: a TCP relay on loopback that holds every byte for a while, in both directions."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def delayed(url: str, one_way_s: float) -> Generator[str]:
    """Relay to a server; returns the base URL of the relay.

    Args:
        url: http://host:port of the server.
        one_way_s: how long bytes are held on each way, in seconds.
    """
    parts = urlsplit(url)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        asyncio.start_server(
            lambda reader, writer: _relay(reader, writer, str(parts.hostname), int(parts.port or 80), one_way_s),
            "127.0.0.1",
            0,
        )
    )
    thread = threading.Thread(target=loop.run_forever, name="delayed", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, one_way_s: float
) -> None:
    """Serve one connection; ends quietly when it is cancelled, which asyncio's server would report as an error."""
    with suppress(asyncio.CancelledError), closing(writer):
        far_reader, far_writer = await asyncio.open_connection(host, port)
        with closing(far_writer):
            await asyncio.gather(_hold(reader, far_writer, one_way_s), _hold(far_reader, writer, one_way_s))


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    """Pass bytes on, each after its time; what comes meanwhile is under way at once."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await reader.read(65536):
            loop.call_later(one_way_s, writer.write, data)
    await asyncio.sleep(one_way_s)
    writer.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
