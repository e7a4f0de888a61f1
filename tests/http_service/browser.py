"""Headless Chromium over a pipe (the DevTools protocol), so that a test can use a page as a person does."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
]
HIGH = 10  # file descriptors from here on are not those that Chromium reads and writes
READS = 3
WRITES = 4


class Browser:
    def __init__(self, profile):
        commands, self.send = os.pipe()
        receive, answers = os.pipe()
        self.receive = os.fdopen(receive, "rb")
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, HIGH) for end in (commands, answers)]

        def place():
            os.dup2(theirs[0], READS)
            os.dup2(theirs[1], WRITES)

        self.process = subprocess.Popen(
            [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "--window-size=1100,820"],
            preexec_fn=place,
            pass_fds=(READS, WRITES),
            stderr=subprocess.DEVNULL,
        )
        for end in (commands, answers, *theirs):
            os.close(end)
        self.number = 0
        self.session = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        os.close(self.send)
        self.receive.close()

    def call(self, method, **parameters):
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters} | self.session
        os.write(self.send, json.dumps(command).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self):
        message = bytearray()
        while (byte := self.receive.read(1)) not in (b"\0", b""):
            message += byte
        return message

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script, most_s=30):
        """What a script gives once that is not nothing."""
        end = time.monotonic() + most_s
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, script
            time.sleep(0.02)
        return value

    def screenshot(self, file):
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
