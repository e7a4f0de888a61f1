"""Federated training and fine-tuning of generative models on Ray, over simulated wireless networks.

Everything a script or a notebook needs is here; what takes long to import is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedray.api import Run, check, load, open, plan, run, trainable
    from fedray.callbacks import Callback, ClientReport, EvaluationReport, RoundReport, RunEnd, RunStart
    from fedray.failures import RunFailed
    from fedray.scenario import ScenarioError

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "ClientReport",
    "EvaluationReport",
    "RoundReport",
    "Run",
    "RunEnd",
    "RunFailed",
    "RunStart",
    "ScenarioError",
    "check",
    "load",
    "open",
    "plan",
    "run",
    "trainable",
]

_MODULES = {
    "fedray.api": ["Run", "check", "load", "open", "plan", "run", "trainable"],
    "fedray.callbacks": [
        "Callback",
        "ClientReport",
        "EvaluationReport",
        "RoundReport",
        "RunEnd",
        "RunStart",
    ],
    "fedray.failures": ["RunFailed"],
    "fedray.scenario": ["ScenarioError"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fedray' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
