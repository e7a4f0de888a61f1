import json

import pytest

from fedray.http_service.requests import ImageRequest, Limits, Refusal, ServedRun, read_request

RUNS = {
    "ink": ServedRun("ink", "/runs/ink", True, steps=20, guidance=3.0),
    "digits": ServedRun("digits", "/runs/digits", False, steps=50, guidance=1.0),
}


def read(raw):
    return read_request(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), RUNS, Limits(steps=60))


def test_what_a_request_does_not_say_is_as_in_the_runs_evaluation():
    assert read({"prompt": "a bag"}) == ImageRequest("ink", "a bag", 0, 20, 3.0)
    assert read({"adapter": "digits"}) == ImageRequest("digits", "", 0, 50, 1.0)
    everything = {"prompt": "x", "adapter": "ink", "seed": 7, "steps": 60, "guidance": 0}
    assert read(everything) == ImageRequest("ink", "x", 7, 60, 0.0)


@pytest.mark.parametrize(
    ("raw", "status", "message"),
    [
        (b"", 400, "body: got no JSON"),
        (b"prompt=a", 400, "body: got no JSON"),
        (b"\xff\xfe", 400, "body: got no JSON"),
        (b'{"prompt": "\\ud800"}', 400, "body: got no JSON"),  # half a character
        (b"[" * 60_000, 400, "body: got no JSON"),
        ([], 400, "body: got other JSON, expected an object"),
        ({}, 422, "prompt: got nothing, expected a text"),
        ({"prompt": 5}, 422, "prompt: got 5, expected a valid string"),
        ({"prompt": "x", "seed": -1}, 422, "seed: got -1, expected"),
        ({"prompt": "x", "seed": 2**53}, 422, "seed: got 9007199254740992, expected"),
        ({"prompt": "x", "seed": True}, 422, "seed: got True, expected a valid integer"),
        ({"prompt": "x", "seed": "7"}, 422, "seed: got '7', expected a valid integer"),
        ({"prompt": "x", "steps": 0}, 422, "steps: got 0, expected"),
        ({"prompt": "x", "steps": 61}, 422, "steps: got 61, expected at most 60"),
        ({"prompt": "x", "guidance": float("nan")}, 422, "guidance: got nan, expected a finite number"),
        ({"prompt": "x", "guidance": 1e9}, 422, "guidance: got 1000000000.0, expected"),
        ({"prompt": "x", "size": 64}, 422, "size: got a key that is not known, expected prompt, adapter,"),
        ({"prompt": "x", "adapter": "chalk"}, 404, "adapter: got 'chalk', expected one of: ink, digits"),
        ({"adapter": "digits", "prompt": "a 7"}, 422, "prompt: got one for digits, expected none"),
    ],
)
def test_a_request_that_gets_no_image_is_refused_by_its_key(raw, status, message):
    with pytest.raises(Refusal) as refused:
        read(raw)
    assert refused.value.status == status
    assert refused.value.message.startswith(message)


def test_what_a_stranger_wrote_cannot_steer_the_terminal_that_shows_the_refusal():
    with pytest.raises(Refusal) as refused:
        read({"prompt": "x", "adapter": "\x1b[2J" + "x" * 5000})
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 200
