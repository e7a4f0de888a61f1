"""As much of the Hugging Face hub as takes a commit: what was sent to it, and what it answers."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPO = "me/ink"
TOKEN = "hf_test"


class Hub(ThreadingHTTPServer):
    """Its repository's files by name, and the bodies of requests that made it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.created, self.message = {}, None, None
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        self.answer(200, {"id": REPO, "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self.answer(200, {"url": f"{self.server.endpoint}/{REPO}", "name": REPO, "id": "1"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.path == f"/api/models/{REPO}/preupload/main":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        assert self.path == f"/api/models/{REPO}/commit/main", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.server.message = line["value"]["summary"]
            else:
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.server.endpoint}/{REPO}/commit/{'a' * 40}"
        return self.answer(200, {"commitUrl": url, "commitOid": "a" * 40, "hookOutput": ""})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Nothing on standard error."""


@contextmanager
def running():
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
