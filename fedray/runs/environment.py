"""env.json: where a run ran."""

import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedray.evaluation.feature_files import locate, sha256
from fedray.runs.remote import without_secrets
from fedray.scenario import plugins
from fedray.scenario.features import listed
from fedray.scenario.kinds import user_kinds
from fedray.scenario.scenario import Scenario

PACKAGES = ("fedray", "torch", "ray", "diffusers", "transformers", "peft", "accelerate", "numpy")


def environment() -> dict[str, Any]:
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
    }


def command() -> dict[str, str]:
    """The command line that this process was started with, where it was fedray's own."""
    ours = Path(sys.argv[0]).name == "fedray" or Path(sys.argv[0]).parts[-2:] == ("fedray", "__main__.py")
    return {"command": without_secrets(shlex.join(["fedray", *sys.argv[1:]]))} if ours else {}


def users_code(*scenarios: Scenario) -> dict[str, Any]:
    """The modules that a user's own kinds come from: the folder of each, and its sha256."""
    modules = plugins.modules_of(kind for scenario in scenarios for kind in user_kinds(scenario))
    if not modules:
        return {}
    return {"code": {m.name: {"folder": str(m.folder), "sha256": m.sha256} for m in modules}}


def feature_networks(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """In whose features images are compared: by kind the sha256 of the weights. Raises Refused where they are
    not there."""
    places = {section.kind: locate(section, folder) for section in listed(scenario.evaluation.features)}
    known = {kind: sha256(place) for kind, place in places.items() if place is not None}
    return {"features": known} if known else {}


def devices() -> dict[str, Any]:
    """What torch and Ray would find here. Imports torch."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    address = os.environ.get("RAY_ADDRESS", "none set: a local Ray is started")
    cuda = torch.version.cuda or "none"
    return {
        "gpus": ", ".join(gpus) or "none",
        "cuda": cuda,
        "memory": f"{memory / 2**30:.0f} GiB",
        "ray_address": address,
    }
