"""`fedray serve` as a user has it: the command, Ray Serve, HTTP, a browser."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil
import pytest
from PIL import Image

from fedray.generate import generate
from tests.http_service.browser import CHROMIUM, Browser

PROMPT = "a photo of a bag in ink style"
TOKEN = "a-token-of-the-tests"
AT_ONCE = 8  # requests of a burst


class Service:
    def __init__(self, process, address):
        self.process = process
        self.address = address

    def get(self, path, token=TOKEN, **options):
        """The answer: its status, headers and body."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.address + path, headers=headers, **options)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def post(self, body, **options):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.get("generate", data=raw, headers={"Content-Type": "application/json"}, **options)

    def png(self, **body):
        status, headers, png = self.post({"prompt": PROMPT, "seed": 7, "steps": 3} | body)
        assert (status, headers["content-type"]) == (200, "image/png"), png
        return png


@pytest.fixture(scope="module")
def service(unbroken, other):
    """The command, in a process of its own with a Ray of its own."""
    command = [sys.executable, "-m", "fedray", "serve", unbroken[1], other, "--port", "0", "--queue", "2"]
    environment = os.environ | {"FEDRAY_SERVE_TOKEN": TOKEN}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    line = process.stdout.readline()
    assert " at http://127.0.0.1:" in line, process.stderr.read()
    assert line.startswith("run, other at ")
    assert line.endswith("/ (token needed); Ctrl-C ends it\n")
    try:
        yield Service(process, line.split(" at ")[1].split(" ")[0])
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def generated(run, tmp_path):
    out = tmp_path / "generated.png"
    generate(run, [PROMPT], out, seed=7, steps=3)
    return out.read_bytes()


def pixels(png):
    return np.array(Image.open(io.BytesIO(png))).astype(int)


def test_the_same_seed_gives_the_same_image_as_generate(service, unbroken, other, tmp_path):
    assert service.png() == service.png(adapter="run") == generated(unbroken[1], tmp_path)
    assert service.png(adapter="other") == generated(other, tmp_path)  # its alpha / rank is 2


def test_another_adapter_changes_the_image_and_the_first_gives_its_own_again(service):
    first = service.png(adapter="run")
    assert np.abs(pixels(service.png(adapter="other")) - pixels(first)).max() > 20
    assert service.png(adapter="run") == first
    assert service.png(adapter="run", seed=8) != first


def test_requests_that_get_no_image_say_why_in_json(service):
    long = " ".join(["bag"] * 40)
    expected = {
        400: service.post(b"no JSON"),
        401: service.post({"prompt": PROMPT}, token="another"),
        404: service.post({"prompt": PROMPT, "adapter": "gone"}),
        405: service.get("generate"),
        413: service.post(b" " * 70_000),
        415: service.get("generate", data=b"{}"),
        422: service.post({"prompt": long}),
    }
    assert {wanted: answer[0] for wanted, answer in expected.items()} == {w: w for w in expected}
    errors = {wanted: json.loads(answer[2])["error"] for wanted, answer in expected.items()}
    assert errors[404] == "adapter: got 'gone', expected one of: run, other"
    assert errors[422].startswith(
        "prompt: got 42 tokens, expected at most the 32 that the text encoder reads"
    )


def test_a_burst_beyond_the_queue_is_429_and_the_others_get_their_images(service):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(service.post, [{"prompt": PROMPT, "steps": 40}] * AT_ONCE))
    statuses = [status for status, *_ in answers]
    assert set(statuses) == {200, 429}
    assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in answers if status == 429)
    assert len({body for status, _, body in answers if status == 200}) == 1


def test_metrics_count_what_was_answered(service):
    service.png(adapter="other")
    status, _, text = service.get("metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    made = float(values['fedray_serve_images_total{adapter="other"}'])
    assert made == float(values['fedray_serve_requests_total{adapter="other",status="200"}']) >= 1
    assert values["fedray_serve_queue"] == "0.0"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_person_gets_an_image_on_the_page(service, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.call("Page.navigate", url=service.address)
        browser.until("document.readyState === 'complete' && !element('error').hidden")
        assert browser.evaluate("element('token-label').hidden") is False  # it wants the token first
        browser.evaluate(
            f"element('token').value = {TOKEN!r}; element('token').dispatchEvent(new Event('change'))"
        )
        browser.until("element('adapter').options.length === 2 && element('error').hidden")
        fields = {"adapter": "other", "prompt": PROMPT, "seed": "7", "steps": "3"}
        for name, value in fields.items():
            browser.evaluate(f"element({name!r}).value = {json.dumps(value)}")
        browser.evaluate("element('go').click()")
        browser.until("document.body.dataset.images === '1'")
        assert browser.evaluate("document.querySelector('#newest img').naturalWidth") == 32
        shown = browser.evaluate(
            "fetch(document.querySelector('#newest img').src).then(r => r.blob()).then(b => b.size)"
            ".catch(() => 'refused')"
        )
        assert shown == "refused"  # by the policy: nothing but the service's own answers is fetched
        assert "other · seed 7 · 3 steps" in browser.evaluate(
            "document.querySelector('figcaption').innerText"
        )
        browser.evaluate("element('prompt').value = '<img src=x onerror=alert(1)>'; element('go').click()")
        browser.until("document.body.dataset.images === '2'")
        assert browser.evaluate("document.images.length") == 2  # what was typed is text


def test_nobody_else_reaches_rays_own_ports(service):
    answers = []
    for process in psutil.Process(service.process.pid).children(recursive=True):
        for place in process.net_connections("tcp"):
            if place.status == "LISTEN" and "127.0.0.1" not in place.laddr.ip:
                with grpc.insecure_channel(f"127.0.0.1:{place.laddr.port}") as channel:
                    call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
                    with pytest.raises(grpc.RpcError) as refused:
                        call(b"", timeout=20)
                    answers.append(refused.value.code())
    assert set(answers) == {grpc.StatusCode.UNAUTHENTICATED}  # of the replicas, which listen everywhere


def test_ctrl_c_ends_it_with_all_that_it_started(service):
    started = psutil.Process(service.process.pid).children(recursive=True)
    assert started
    service.process.send_signal(signal.SIGINT)
    out, err = service.process.communicate(timeout=60)
    assert (service.process.returncode, out) == (0, "")
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
