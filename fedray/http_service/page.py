"""The page on which a service can be tried: one file, which fetches nothing but the service's own answers."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page() -> tuple[bytes, str]:
    """The page, and the policy that lets nothing run in it but its own script and style."""
    text = (files("fedray.http_service") / "page.html").read_text(encoding="utf-8")
    script = _digest(text, "script")
    style = _digest(text, "style")
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _digest(text: str, tag: str) -> str:
    """Of the page's one element of this kind, as a policy names it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
