"""``Answer``: one file asked of a server, whose bytes can be waited for without being stuck in the waiting.

The standard library's client is enough here, so neither requests nor pooch is needed: what takes care (going on after a cut, and
stopping at once) has to be done by hand with either. A thread of its own reads from the network, and the caller looks at a queue; so
a wish to stop is heard within a tenth of a second, also while a server is looked up or says nothing.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import queue
import socket
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from napari_tileseg.errors import Cancelled, DownloadError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.hubs.addresses import check_url, mirrored, redirected, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_tileseg.models.settings import Settings

__all__ = ["Answer", "Broken", "ask", "pause"]

_BLOCK = 2**18
_WAITING = 8
"""Blocks that wait at most between the network and the disk."""

_LOOK = 0.1
"""Seconds between two looks at whether somebody wants to stop."""

_GRACE = 0.5
"""Seconds in which a server may send more than it announced."""

_MOST_HOPS = 10
_REDIRECTIONS = (301, 302, 303, 307, 308)
_SAFE = "%/?:=&~+!$,;'@()*"
"""What of an address is left as it is in a request line; the rest is escaped."""

_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


class Broken(Exception):
    """The network or the server failed in a way that may pass.

    Parameters
    ----------
    reason : str
        As the end of a sentence: ``"the server answered 503"``.
    wait : float
        Seconds the server asked for.
    """

    def __init__(self, reason: str, *, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class Answer:
    """What a server answered: its head, and then its bytes.

    Parameters
    ----------
    status : int
        200, 206 or 416.
    headers : mapping of str to str
        By their names in lower case.
    length : int, optional
        Bytes that the server announced.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    _blocks: queue.Queue[bytes | BaseException | None] = field(repr=False, default_factory=queue.Queue)
    _stopping: Callable[[], bool] = field(repr=False, default=lambda: False)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they come.

        Raises
        ------
        Broken
            If the connection ends before the announced length, or nothing comes for too long.
        DownloadError
            If more comes than was announced.
        Cancelled
            If somebody wants to stop.
        """
        while (block := _next(self._blocks, self._stopping)) is not None:
            yield block


@contextlib.contextmanager
def ask(url: str, settings: Settings, stopping: Callable[[], bool], headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask a server for a file; the connection ends with the block.

    Parameters
    ----------
    url : str
    settings : Settings
        Proxy, mirror and timeout count.
    stopping : callable
        Whether somebody wants to stop; asked ten times a second.
    headers : mapping, optional
        More lines of the request.

    Raises
    ------
    Broken
        What may pass: no connection, a server in trouble.
    DownloadError
        What will not: a wrong address, a redirection that is not followed, an answer of 404.
    Cancelled
        If somebody wants to stop.
    """
    call = _Call(url, settings, dict(headers or {}))
    thread = threading.Thread(target=call.run, name="tileseg-download", daemon=True)
    thread.start()
    try:
        head = _next(call.heads, stopping)
        yield Answer(head.status, head.headers, head.length, call.blocks, stopping)
    finally:
        call.end()


def _next(waiting: queue.Queue[Any], stopping: Callable[[], bool]) -> Any:
    """Return what comes next, or raise it."""
    while True:
        if stopping():
            raise Cancelled("The download was stopped; what was fetched is kept, and the same command goes on from there.")
        with contextlib.suppress(queue.Empty):
            found = waiting.get(timeout=_LOOK)
            if isinstance(found, BaseException):
                raise found
            return found


class _Call:
    """One request with all its redirections, in a thread of its own."""

    def __init__(self, url: str, settings: Settings, headers: dict[str, str]) -> None:
        self.heads: queue.Queue[Any] = queue.Queue()
        self.blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(_WAITING)
        self._url = url
        self._settings = settings
        # A packed answer could be neither continued nor compared with a checksum.
        self._headers = {"User-Agent": _agent(), "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", **headers}
        self._ended = threading.Event()
        self._socket: socket.socket | None = None

    def end(self) -> None:
        """Let go of the connection, also where the thread waits for the network."""
        self._ended.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Empty):
            self.blocks.get_nowait()

    def run(self) -> None:
        waiting: queue.Queue[Any] = self.heads
        try:
            connection, response, length = self._reach()
            with connection:
                head = {name.lower(): value for name, value in response.getheaders()}
                self.heads.put(Answer(response.status, head, length))
                waiting = self.blocks
                for block in self._read(response, length):
                    self._put(block)
            self._put(None)
        except (DownloadError, Broken) as error:
            self._put(error, waiting)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._put(_translated(error, self._settings), waiting)
        except BaseException as error:  # nobody else would hear of it, and the caller would wait for ever
            self._put(error, waiting)

    def _put(self, thing: Any, waiting: queue.Queue[Any] | None = None) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                (waiting or self.blocks).put(thing, timeout=_LOOK)
                return

    def _reach(self) -> tuple[contextlib.ExitStack, http.client.HTTPResponse, int | None]:
        """Follow redirections to the file itself; what is returned first closes the connection."""
        url = self._url
        for _ in range(_MOST_HOPS):
            address = mirrored(url, self._settings)
            with contextlib.ExitStack() as open_things:
                connection, target = self._connect(check_url(address))
                open_things.callback(connection.close)
                response, length = self._request(connection, target)
                open_things.callback(response.close)
                if response.status in (200, 206, 416):
                    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                        what = "comes packed, which was not asked for. Fetch it with your browser, and import it."
                        raise DownloadError(f"{shown(url)} {what}")
                    return open_things.pop_all(), response, length
                if response.status not in _REDIRECTIONS:
                    raise _refusal(address, response)
                url = redirected(address, response.headers.get("Location", ""))
        raise DownloadError(f"{shown(self._url)} sends on more than {_MOST_HOPS} times. Fetch the file with your browser, and import it.")

    def _connect(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection that is not open yet, and what to ask it for."""
        secure, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        proxy = _proxy(parts, self._settings)
        seconds = self._settings.timeout
        near = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        connection: http.client.HTTPConnection
        if secure:
            connection = http.client.HTTPSConnection(*near, timeout=seconds, context=_context())
        else:
            connection = http.client.HTTPConnection(*near, timeout=seconds)
        self._headers.pop("Proxy-Authorization", None)
        if proxy and secure:
            connection.set_tunnel(host, port, headers=_login(proxy))
        elif proxy:
            self._headers |= _login(proxy)
            target = f"http://{parts.netloc}{target}"
        self._headers["Host"] = parts.netloc
        return connection, target

    def _request(self, connection: http.client.HTTPConnection, target: str) -> tuple[http.client.HTTPResponse, int | None]:
        connection.connect()
        self._socket = connection.sock
        if self._ended.is_set():
            raise Broken("it was stopped")
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        length = None if response.chunked else response.length
        response.length = None  # so that what comes beyond the announced length is seen; it is counted here instead
        return response, length

    def _read(self, response: http.client.HTTPResponse, length: int | None) -> Iterator[bytes]:
        done = 0
        while length is None or done < length:
            block = response.read1(_BLOCK)
            if not block:
                break
            done += len(block)
            if length is not None and done > length:
                break
            yield block
        if length is not None and (done > length or (done == length and self._goes_on(response))):
            raise DownloadError(
                f"{shown(self._url)} is longer than the {length} bytes that its server announced, so it cannot be trusted to be whole. "
                "Try again later, or fetch it with your browser and import it."
            )
        if length is None and not done and not response.chunked:
            raise Broken("the server sent nothing")  # perhaps cut off within the head, which cannot be told
        if length is not None and done < length:
            raise Broken(f"the connection ended after {done} of {length} bytes")

    def _goes_on(self, response: http.client.HTTPResponse) -> bool:
        """Tell whether a server sends more than it announced."""
        if self._socket is None or response.chunked:
            return False
        try:
            self._socket.settimeout(_GRACE)
            return bool(response.read1(1))
        except (OSError, http.client.HTTPException, ValueError):
            return False


def _refusal(address: str, response: http.client.HTTPResponse) -> Exception:
    """Return the error for an answer that brings no file."""
    said = f"{response.status} {http.client.responses.get(response.status, '')}".strip()
    if response.status in _TEMPORARY:
        asked = response.headers.get("Retry-After", "")
        return Broken(f"the server answered {said}", wait=min(float(asked), 60) if asked.isdecimal() else 0)
    what = {
        401: "It asks for a login: fetch it with your browser, and import the file.",
        403: "It is not open to everybody: fetch it with your browser, and import the file.",
        404: "There is no such file: check the address.",
        407: "The proxy asks for a login: tileseg settings set proxy http://user:password@host:port.",
        410: "It is gone: look for a newer one.",
    }.get(response.status, "Check the address, or try later.")
    return DownloadError(f"{shown(address)} cannot be fetched: the server answered {said}. {what}")


def _translated(error: Exception, settings: Settings) -> Exception:
    """Return our error for one of the network's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadError(
            f"The server's certificate is not accepted: {error.verify_message}. "
            "Where your network brings its own, name its file in SSL_CERT_FILE."
        )
    if isinstance(error, TimeoutError):
        return Broken(f"the server said nothing for {settings.timeout:g} s")
    if isinstance(error, socket.gaierror):
        return Broken("the server's name is not known, or there is no network")
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return Broken("the connection was cut")
    if isinstance(error, http.client.HTTPException):
        return Broken("the server does not answer as a web server does")
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith("Tunnel connection failed: 4"):
        return DownloadError(
            f"The proxy refuses: {printable(text[26:])}. Set another one: tileseg settings set proxy http://user:password@host:port."
        )
    return Broken(printable(text[:1].lower() + text[1:]))


def _proxy(parts: SplitResult, settings: Settings) -> SplitResult | None:
    """Return the proxy for an address: the user's setting, else the system's."""
    host = parts.hostname or ""
    chosen = settings.proxy or urllib.request.getproxies().get(parts.scheme, "")
    if not chosen or urllib.request.proxy_bypass(host):
        return None
    proxy = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise DownloadError(
            "Only proxies whose address starts with http:// can be used. Set one: tileseg settings set proxy http://host:port."
        )
    return proxy


def _login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _context() -> ssl.SSLContext:
    """Return what certificates are checked against: the system's, and those that come with certifi, which some systems lack."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _agent() -> str:
    from napari_tileseg import __version__

    return f"napari-tileseg/{__version__}"


def pause(seconds: float, stopping: Callable[[], bool]) -> None:
    """Wait, unless somebody wants to stop.

    Raises
    ------
    Cancelled
        Then.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stopping():
            raise Cancelled("The download was stopped; what was fetched is kept, and the same command goes on from there.")
        time.sleep(min(left, _LOOK))
