"""A service on a Ray where others serve, too."""

import socket
import urllib.error
import urllib.request

import pytest

from fedray.executors.ray.connection import connect
from fedray.http_service import deployment
from fedray.http_service.requests import GeneratedImage, Limits, ServedRun
from fedray.scenario import ScenarioError

RUNS = [ServedRun("ink", "/runs/ink", True, 20, 3.0)]


def endpoint(port, route="/ink", replicas=1):
    return deployment.Endpoint("127.0.0.1", port, route, replicas, None, None)


def get(port, path, data=None):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


@pytest.fixture
def port(cluster):
    """Of a Ray Serve whose one application is somebody else's."""
    from ray import serve

    class Neighbour:
        def __call__(self, request):
            return "somebody else's"

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        number = listening.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": number})
    options = {"ray_actor_options": {"num_cpus": 0}, "graceful_shutdown_wait_loop_s": 0.1}
    serve.run(serve.deployment(Neighbour).options(**options).bind(), name="neighbour", route_prefix="/")
    yield number
    serve.shutdown()


def test_a_service_beside_others_comes_and_goes_alone(port, monkeypatch):
    class Model:  # of no run, so that nothing but Serve is waited for
        def __init__(self, runs):
            pass

        def problem(self):
            return None

        def sample(self, request):
            if request.prompt == "fail":
                raise RuntimeError("a defect")
            return GeneratedImage(request.prompt.encode(), 0.1)

    monkeypatch.setattr(deployment, "ModelProcess", Model)
    application = deployment.Application("fedray-test", connect())
    for wrong, message in (
        (endpoint(port + 1), f"where Ray Serve listens already, expected its --host 127.0.0.1 --port {port}"),
        (endpoint(port, "/"), "--route: got /, which the application neighbour has, expected another"),
        (endpoint(port, replicas=100), "--replicas: got 100 of 1 cores each"),
    ):
        with pytest.raises(ScenarioError) as refused:
            application.start(RUNS, Limits(), wrong)
        assert message in str(refused.value)
    address = application.start(RUNS, Limits(), endpoint(port))
    assert address == f"http://127.0.0.1:{port}/ink"
    assert get(port, "/ink/generate", b'{"prompt": "a bag"}') == b"a bag"
    with pytest.raises(urllib.error.HTTPError) as failed:
        get(port, "/ink/generate", b'{"prompt": "fail"}')
    assert failed.value.code == 500
    assert b"a defect" not in failed.value.read()  # which the log has
    assert b"fedray serve" in get(port, "/ink/")
    assert get(port, "/") == b"somebody else's"
    application.remove()
    assert get(port, "/ink/health") == b"somebody else's"  # which has all paths again
