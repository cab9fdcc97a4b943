"""The application behind a socket: uvicorn, with less patience for slow clients than it has by itself."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from credibly.errors import InputError
from credibly.serve.logs import tell
from credibly.serve.settings import ServiceSettings

BACKLOG = 1024


class PatientProtocol(H11Protocol):
    """Gives a client so many seconds to send a request and to read an answer.

    To send its head, that is, or the rest of one that is already refused: bodies are timed by the guard.
    Uvicorn waits for all three without end; what it does time itself are idle connections between requests,
    of which the ones with an unread answer are let go as well.
    """

    _sending: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the clock where a request is whole, start it where one is not."""
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        """Start the clock for an answer that waits to be read."""
        super().pause_writing()
        self._reading = self._later()

    def resume_writing(self) -> None:
        """Stop it: enough has been read."""
        _stop(self._reading)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        _stop(self._sending)
        _stop(self._reading)
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for long, whether or not its last answer was read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            _stop(self._sending)
            self._sending = None
        elif self._sending is None:
            self._sending = self._later()

    def _later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.timeout_keep_alive, self.transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Who connects before a server runs on it waits for one.

    Raises:
        InputError: the address is taken, or not this machine's.
    """
    listener = None
    try:
        if not 0 <= port < 65536:
            raise OverflowError("ports go from 0 to 65535")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # or another, too, could bind to it until one of both listens
    except (OSError, OverflowError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise InputError(
            f"expected an address to listen on, got {host} port {port} ({error}); give another --port"
        ) from None
    return listener


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return host == "localhost" or host == "::1" or host.startswith("127.")


def run(app: FastAPI, listener: socket.socket, settings: ServiceSettings) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was taken on and return."""
    host, port = listener.getsockname()[:2]
    if not is_loopback(host) and settings.token is None:
        tell("anyone who reaches this address may ask; give a token", host=host)
    tell("serving", address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with ended_by_signals():
        uvicorn.Server(config(app, settings)).run(sockets=[listener])
    tell("stopped")


def config(app: FastAPI, settings: ServiceSettings) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.patience_seconds,  # type: ignore[arg-type]  # any number of seconds will do
        timeout_graceful_shutdown=int(settings.stop_seconds),
    )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal that uvicorn has already obeyed end the block and not the process.

    Uvicorn raises it again after it has stopped.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
