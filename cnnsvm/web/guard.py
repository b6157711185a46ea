"""What every answer passes: headers of safety, a line in the log, no trace of what was sent."""

import logging
import time
import traceback
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_GONE = 499  # who asked has left; as nginx counts it


class Guard:
    """Middleware around all routes.

    It adds headers, refuses what the page of another site sends and what was sent to a name that is
    not the server's, answers HEAD as GET, counts and logs each request by its route, and turns an
    error of the program into a status 500 whose log names places in the code and no values: a
    message could quote what was sent.

    Parameters
    ----------
    app : ASGI application
    count : callable
        Takes a route, a status and seconds.
    hosts : collection of str
        Names by which the server is known, beside localhost; "*" is any. An address is always one:
        the page of another site that has its own name lead here (DNS rebinding) does not have it.
    """

    def __init__(
        self, app: ASGIApp, count: Callable[[str, int, float], None], hosts: Collection[str]
    ) -> None:
        self.app, self.count = app, count
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        if scope["method"] == "HEAD":  # servers send no body then
            scope = {**scope, "method": "GET"}

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            headers = Headers(scope=scope)
            app = self.app if self._is_ours(headers.get("host")) else _misled
            await (_foreign if _is_foreign(headers) else app)(scope, receive, send_guarded)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:
            places = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s in\n%s", type(error).__name__, places)
            if status == 0:
                await _problem(500, "an error of the server; its log says where.")(
                    scope, receive, send_guarded
                )
        self._note(scope, status, time.perf_counter() - started)

    def _is_ours(self, host: str | None) -> bool:
        """Tell whether a Host header names this server: an address, or a name that it has."""
        if host is None or "*" in self.hosts:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.hosts or bool(ip_address(name))
        except ValueError:  # neither
            return False

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self.count(path, status, seconds)
        logger.info("%s %s %d in %.3f s", scope["method"], path, status, seconds)


def _is_foreign(headers: Headers) -> bool:
    """Tell whether a browser sends this for the page of another site."""
    origin = headers.get("origin")
    try:
        same = origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:  # no address at all
        same = False
    return not same or headers.get("sec-fetch-site") == "cross-site"


async def _foreign(scope: Scope, receive: Receive, send: Send) -> None:
    answer = _problem(403, "sent by the page of another site. Use the page of this server.")
    await answer(scope, receive, send)


async def _misled(scope: Scope, receive: Receive, send: Send) -> None:
    answer = _problem(421, "no host name of this server. Start it with --allow-host NAME.")
    await answer(scope, receive, send)


def _problem(status: int, sentence: str) -> Any:
    return JSONResponse({"error": sentence}, status)
