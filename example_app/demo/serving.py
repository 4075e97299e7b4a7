"""Serves an application from inside this process."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

__all__ = ["ServingError", "listening", "serving"]

HOST = "127.0.0.1"


class ServingError(Exception):
    """The application cannot be served."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the demo, which has more to close than the server."""
        yield


class _LastWords(logging.Handler):
    """The reason why an application did not start. Uvicorn writes it to its log only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        # The last line of a traceback is the error.
        self.first = self.first or record.getMessage().strip().rpartition("\n")[2]


def listening(port: int) -> socket.socket:
    """A socket on the loopback interface, at the port if it is free, else at another one.

    Raises `ServingError` if none can be opened.
    """
    for candidate in (port, 0):
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, candidate))
            listener.listen()
        except (OSError, OverflowError) as error:
            listener.close()
            why = error
        else:
            return listener
    raise ServingError(f"cannot listen on {HOST}: {why}")


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncGenerator[str]:
    """Serve the application during the block. Yields its address.

    Raises `ServingError` when it does not start.
    """
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1))
    last_words = _LastWords()
    log = logging.getLogger("uvicorn.error")
    log.addHandler(last_words)
    log.propagate = False
    task = asyncio.create_task(_serve(server, listener))
    try:
        while not server.started:
            if task.done():
                raise ServingError(f"the service did not start: {last_words.first}")
            await asyncio.sleep(0.01)
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        log.removeHandler(last_words)
        log.propagate = True


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    with listener, suppress(SystemExit):  # raised by uvicorn when the application did not start: the socket stays open
        await server.serve(sockets=[listener])
