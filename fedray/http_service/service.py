"""The HTTP service, whatever process makes the images: routes, the token, the bounded queue."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from fedray.errors import UserError
from fedray.http_service.metrics import NO_ADAPTER, Metrics
from fedray.http_service.page import page
from fedray.http_service.requests import (
    GeneratedImage,
    ImageRequest,
    Limits,
    Refusal,
    ServedRun,
    read_request,
)

log = logging.getLogger(__name__)
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
SHORTEST = 16  # characters of a token
CANCELLED = 499  # as nginx logs a client that has gone
PUBLIC = ("/", "/health")  # which say nothing of the runs


def digest_of(token: str | None) -> bytes | None:
    """What a process has to know of a token."""
    return None if token is None else hashlib.sha256(token.encode()).digest()


class HttpService:
    """Answers requests.

    Args:
        runs: the first is the default.
        sample: makes an image, or gives a refusal.
        limits: what it takes on.
        at_once: images that are made at the same time.
        token_digest: of the token that requests have to show; None: none.
    """

    def __init__(
        self,
        runs: Sequence[ServedRun],
        sample: Callable[[ImageRequest], Awaitable[GeneratedImage | Refusal]],
        limits: Limits,
        at_once: int,
        token_digest: bytes | None,
    ) -> None:
        self.runs = {run.name: run for run in runs}
        self.sample = sample
        self.limits = limits
        self.at_once = at_once
        self.token_digest = token_digest
        self.metrics = Metrics(list(self.runs))
        # Serve's own router looks for a free process again and again, later and later
        self.free_processes = asyncio.Semaphore(at_once)
        self.accepted = 0  # requests that wait or are answered
        self.mean_s = 1.0  # of an image, over the last few
        self.routes: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": ("GET", self._page),
            "/health": ("GET", self._health),
            "/adapters": ("GET", self._adapters),
            "/metrics": ("GET", self._metrics),
            "/generate": ("POST", self._generate),
        }

    async def respond(self, request: Request) -> Response:
        """The answer to a request, whatever it is."""
        try:
            response = await self._routed(request)
        except Refusal as e:
            response = JSONResponse({"error": e.message}, e.status, e.headers)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    async def _routed(self, request: Request) -> Response:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "").rstrip("/"))
        if not path:  # links of the page are relative
            return RedirectResponse(f"{request.scope['path']}/")
        if path not in self.routes:
            raise Refusal(404, f"path: got one that is not there, expected one of: {', '.join(self.routes)}")
        self._refuse_stranger(request, path)
        method, answer = self.routes[path]
        if request.method != method and not (request.method == "HEAD" and method == "GET"):
            raise Refusal(405, f"method: got {request.method}, expected {method}", {"Allow": method})
        return await answer(request)

    def _refuse_stranger(self, request: Request, path: str) -> None:
        """Raises Refusal for a request without the token; where there is none, for one that a page of another
        host sends through a browser of this machine (DNS rebinding)."""
        if self.token_digest is None:
            host = request.url.hostname or ""
            if not is_loopback(host):
                raise Refusal(403, f"Host: got {host!r:.80}, expected localhost or 127.0.0.1")
            return
        if path in PUBLIC:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        shown = hashlib.sha256(token.strip().encode()).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(shown, self.token_digest):
            expected = "Authorization: Bearer with the service's token"
            raise Refusal(
                401, f"token: got none or another, expected {expected}", {"WWW-Authenticate": "Bearer"}
            )

    async def _page(self, request: Request) -> Response:
        content, policy = page()
        headers = {"Content-Security-Policy": policy}
        return Response(content, headers=headers, media_type="text/html; charset=utf-8")

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _adapters(self, request: Request) -> Response:
        adapters = [
            {"name": r.name, "takes_prompts": r.takes_prompts, "steps": r.steps, "guidance": r.guidance}
            for r in self.runs.values()
        ]
        return JSONResponse({"adapters": adapters, "most_steps": self.limits.steps})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _generate(self, request: Request) -> Response:
        """Counts one request, and answers it."""
        adapter = NO_ADAPTER
        status = CANCELLED
        try:
            wanted = read_request(await self._body(request), self.runs, self.limits)
            adapter = wanted.adapter
            image = await self._made(wanted)
            status = 200
            return Response(image.png, media_type="image/png")
        except Refusal as e:
            status = e.status
            raise
        except ClientDisconnect:  # nobody reads this
            raise Refusal(400, "body: got a part of it, expected the whole") from None
        finally:
            self.metrics.requests.labels(adapter, str(status)).inc()

    async def _body(self, request: Request) -> bytes:
        """Raises Refusal for what is not announced as JSON, and for more than is read."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # which a page of another origin cannot send without asking first
            raise Refusal(415, f"Content-Type: got {kind or 'none'!r:.80}, expected application/json")
        most = self.limits.body_bytes
        too_long = Refusal(413, f"body: got more than {most:,} bytes, expected at most that")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > most:
            raise too_long
        raw = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    raw += part
                    if len(raw) > most:
                        raise too_long
        except TimeoutError:
            got = f"a part of it in {self.limits.body_s:g} s"
            raise Refusal(408, f"body: got {got}, expected the whole") from None
        return bytes(raw)

    async def _made(self, wanted: ImageRequest) -> GeneratedImage:
        """Raises Refusal where as many requests wait as may."""
        if self.accepted >= self.at_once + self.limits.queue:
            after = math.ceil(self.mean_s * self.accepted / self.at_once)
            got = f"{self.accepted} requests that wait or are answered"
            expected = f"fewer; try again in {after} s"
            raise Refusal(429, f"queue: got {got}, expected {expected}", {"Retry-After": str(after)})
        start = time.monotonic()
        self.accepted += 1
        self.metrics.queue.set(self.accepted)
        try:
            async with self.free_processes:
                image = await self.sample(wanted)
        finally:
            self.accepted -= 1
            self.metrics.queue.set(self.accepted)
        if isinstance(image, Refusal):
            raise image
        self.mean_s += (image.seconds - self.mean_s) / 8
        self.metrics.images.labels(wanted.adapter).inc()
        self.metrics.seconds.labels(wanted.adapter).observe(time.monotonic() - start)
        self.metrics.sampling.labels(wanted.adapter).observe(image.seconds)
        return image


def refuse_open(host: str, token: str | None) -> None:
    """Raises UserError for a service that others could reach without a token, or with one that is guessed."""
    if token is None and not is_loopback(host):
        got = f"{host} without a token"
        raise UserError(f"--host: got {got}, expected 127.0.0.1, or FEDRAY_SERVE_TOKEN in the environment")
    if token is not None and (len(token) < SHORTEST or not token.isascii() or not token.isprintable()):
        expected = f"at least {SHORTEST} printable ASCII characters: openssl rand -hex 32"
        raise UserError(f"FEDRAY_SERVE_TOKEN: got {len(token)} characters, expected {expected}")


def is_loopback(host: str) -> bool:
    """Whether a host's name, or its address, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
