import asyncio
import json
import re

import pytest
from starlette.requests import Request

from fedray.errors import UserError
from fedray.http_service.page import page
from fedray.http_service.requests import GeneratedImage, Limits, Refusal, ServedRun
from fedray.http_service.service import HttpService, digest_of, refuse_open

RUNS = [ServedRun("ink", "/runs/ink", True, 20, 3.0), ServedRun("chalk", "/runs/chalk", True, 20, 3.0)]
TOKEN = "0123456789abcdef"
JSON = {"content-type": "application/json"}


async def at_once(request):
    return GeneratedImage(f"{request.adapter} {request.prompt}".encode(), 0.5)


def service(sample=at_once, token=None, **limits):
    return HttpService(RUNS, sample, Limits(**limits), 1, digest_of(token))


async def send(served, method="GET", path="/", body=b"", headers=None, root=""):
    """The answer: its status, headers and body. A body that is a list arrives part by part."""
    parts = list(body) if isinstance(body, list) else [body]

    async def receive():
        if not parts:
            await asyncio.Event().wait()
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    sent = {"host": "localhost:8000"} | (headers or {})
    raw = [(k.lower().encode(), v.encode()) for k, v in sent.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": root, "headers": raw}
    scope |= {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 8000)}
    answer = await served.respond(Request(scope, receive))
    return answer.status_code, answer.headers, answer.body


def answer(*args, **kwargs):
    return asyncio.run(send(*args, **kwargs))


def post(served, body, **headers):
    raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
    return answer(served, "POST", "/generate", raw, JSON | headers)


def test_a_prompt_gets_its_adapters_image():
    status, headers, body = post(service(), {"prompt": "a bag", "adapter": "chalk"})
    assert (status, headers["content-type"], body) == (200, "image/png", b"chalk a bag")


def test_a_body_that_is_not_announced_as_json_is_415():
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        status, _, body = answer(
            service(), "POST", "/generate", b'{"prompt": "x"}', {"content-type": kind} if kind else {}
        )
        assert status == 415
        assert "expected application/json" in json.loads(body)["error"]


def test_a_body_beyond_the_limit_is_413_whether_it_says_so_or_not():
    served = service(body_bytes=100)
    announced = post(served, b"", **{"content-length": "101"})
    silent = post(served, [b" " * 60, b" " * 60])
    assert announced[0] == silent[0] == 413
    assert json.loads(silent[2]) == {"error": "body: got more than 100 bytes, expected at most that"}


def test_a_body_that_does_not_arrive_is_408():
    async def half():
        served = service(body_s=0.01)
        parts = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive():
            return parts.pop() if parts else await asyncio.Event().wait()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/generate", "headers": headers}
        return await served.respond(Request(scope | {"query_string": b"", "scheme": "http"}, receive))

    assert asyncio.run(half()).status_code == 408


def test_what_waits_is_bounded_and_beyond_it_429_says_when_to_come_again():
    async def burst():
        done = asyncio.Event()

        async def sample(request):
            await done.wait()
            return await at_once(request)

        served = service(sample, queue=2)
        raw = b'{"prompt": "x"}'
        waiting = [asyncio.create_task(send(served, "POST", "/generate", raw, JSON)) for _ in range(3)]
        await asyncio.sleep(0)
        while served.accepted < 3:
            await asyncio.sleep(0)
        busy = await send(served, "POST", "/generate", raw, JSON)
        others = await send(served, "GET", "/health")
        counted = (await send(served, "GET", "/metrics"))[2]
        waiting.pop().cancel()  # a client that has gone leaves its place
        await asyncio.sleep(0)
        done.set()
        after = await send(served, "POST", "/generate", raw, JSON)
        return busy, others, counted, [(await task)[0] for task in waiting], after

    busy, others, counted, waited, after = asyncio.run(burst())
    assert (busy[0], busy[1]["retry-after"], others[0]) == (429, "3", 200)
    assert json.loads(busy[2])["error"].startswith("queue: got 3 requests that wait or are answered")
    assert b"fedray_serve_queue 3.0" in counted
    assert (waited, after[0]) == ([200, 200], 200)


def test_metrics_count_by_adapter_and_status():
    served = service()
    post(served, {"prompt": "x"})
    post(served, {"prompt": "x", "adapter": "chalk"})
    post(served, {"prompt": "x", "adapter": "unknown"})
    status, headers, text = answer(served, path="/metrics")
    assert (status, headers["content-type"][:28]) == (200, "text/plain; version=0.0.4; c")
    lines = text.decode().splitlines()
    assert 'fedray_serve_requests_total{adapter="chalk",status="200"} 1.0' in lines
    assert 'fedray_serve_requests_total{adapter="",status="404"} 1.0' in lines
    assert 'fedray_serve_images_total{adapter="ink"} 1.0' in lines
    assert 'fedray_serve_sampling_seconds_sum{adapter="ink"} 0.5' in lines
    assert "fedray_serve_queue 0.0" in lines


def test_with_a_token_nobody_else_is_answered():
    served = service(token=TOKEN)
    for sent in (None, "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ü"):
        headers = {"authorization": sent.encode().decode("latin-1")} if sent else {}
        for method, path in (("POST", "/generate"), ("GET", "/metrics"), ("GET", "/adapters")):
            status, said, _ = answer(served, method, path, b'{"prompt": "x"}', JSON | headers)
            assert (status, said["www-authenticate"]) == (401, "Bearer")
    assert post(served, {"prompt": "x"}, authorization=f"Bearer {TOKEN}")[0] == 200
    public = [answer(served, path=path)[2] for path in ("/", "/health")]  # which name no run
    assert not any(b"chalk" in body for body in public)


def test_without_a_token_a_page_of_another_host_is_not_answered():
    for host, status in (("evil.example", 403), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200)):
        assert answer(service(), path="/health", headers={"host": host})[0] == status


def test_paths_begin_with_the_route_of_the_service():
    assert answer(service(), path="/ink/health", root="/ink")[0] == 200
    status, headers, _ = answer(service(), path="/ink", root="/ink")
    assert (status, headers["location"]) == (307, "/ink/")


def test_other_paths_and_methods_are_refused_in_json():
    status, _, body = answer(service(), path="/../etc/passwd")
    assert (status, list(json.loads(body))) == (404, ["error"])
    status, headers, _ = answer(service(), "GET", "/generate")
    assert (status, headers["allow"]) == (405, "POST")


def test_what_the_model_refuses_is_the_answer():
    async def sample(request):
        return Refusal(422, "prompt: got 99 tokens, expected at most 32")

    status, _, body = post(service(sample), {"prompt": "x"})
    assert (status, json.loads(body)) == (422, {"error": "prompt: got 99 tokens, expected at most 32"})


def test_the_pages_policy_lets_nothing_in_but_its_own_script_and_style():
    content, policy = page()
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert re.findall(rb"(?:src|href)=\"(?!data:,)", content) == []
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\son\w+=", content)
    assert answer(service())[1]["content-security-policy"] == policy


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("0.0.0.0", None, "--host: got 0.0.0.0 without a token"),
        ("example.org", None, "--host: got example.org without a token"),
        ("127.0.0.1", "short", "FEDRAY_SERVE_TOKEN: got 5 characters"),
    ],
)
def test_a_service_that_others_reach_needs_a_token_that_is_not_guessed(host, token, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        refuse_open(host, token)
    refuse_open("127.0.0.1", None)
    refuse_open("0.0.0.0", TOKEN)
