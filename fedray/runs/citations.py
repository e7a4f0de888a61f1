"""CITATION.bib: what to cite for exactly the methods a scenario uses."""

from importlib.resources import files

from fedray.scenario.scenario import Scenario


def bibtex(scenario: Scenario) -> str:
    """The entries of all methods that a scenario uses, in the order of citations.bib."""
    used = set(scenario.cited())
    entries = files("fedray.runs").joinpath("citations.bib").read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(entry for entry in entries if _key(entry) in used) + "\n"


def _key(entry: str) -> str:
    return entry.split("{", 1)[1].split(",", 1)[0]
