"""What a user may write: one pydantic model a section, loaded with the line of every error. No torch, no
Ray."""

from fedray.scenario.base import Refused
from fedray.scenario.load import Loaded, ScenarioError, load
from fedray.scenario.scenario import Scenario

__all__ = ["Loaded", "Refused", "Scenario", "ScenarioError", "load"]
