"""`data.sites`: samples that may not leave the places where they lie."""

import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fedray.scenario.base import FilePath, Name, Refused, Section

FOLDER_PATTERN = r"^[^/\\\x00]*[^./\\\x00][^/\\\x00]*$"  # never a way out of where it lies
# However a keyboard or a file system composes it, as data/folders.py compares names.
FolderName = Annotated[
    str, Field(pattern=FOLDER_PATTERN), AfterValidator(partial(unicodedata.normalize, "NFC"))
]


class Site(Section):
    """A place whose samples stay there, with one client per folder. Only nodes with Ray's label `site=NAME`
    open them."""

    folders: Annotated[list[FolderName], Field(min_length=1)] = Field(
        description="The folders at this site, one per client; of instructions a file's name without .jsonl "
        "will do, too."
    )
    path: FilePath | None = Field(
        default=None, description="The folder that they lie in on the site's nodes. None: as data.path."
    )


Sites = Annotated[dict[Name, Site], Field(min_length=1)]


def clients_at(sites: Mapping[str, Site] | None) -> dict[str, list[int]]:
    """Clients by their site; they are numbered in the order of sites and of folders."""
    clients: dict[str, list[int]] = {}
    first = 0
    for name, site in (sites or {}).items():
        clients[name] = list(range(first, first + len(site.folders)))
        first += len(site.folders)
    return clients


def conflicts(sites: Mapping[str, Site], scenario: Any) -> Iterator[Refused]:
    """What samples at sites cannot go with, whatever they are samples of."""
    for name, site in sites.items():
        if len(set(site.folders)) < len(site.folders):
            yield Refused(f".sites.{name}.folders", ", ".join(site.folders), "each folder once")
    partition = scenario.data.partition
    if not partition.by_folder:
        expected = "folder, since data.sites names one folder a client"
        yield Refused(".partition", partition.kind, expected)
    folders = sum(len(site.folders) for site in sites.values())
    if folders != scenario.population.clients:
        got = f"{scenario.population.clients} for {folders} folders of data.sites"
        yield Refused("population.clients", got, f"{folders}, one a folder")
    if scenario.runtime.executor != "ray":
        expected = "ray, since data.sites pins clients to nodes"
        yield Refused("runtime.executor", scenario.runtime.executor, expected)
