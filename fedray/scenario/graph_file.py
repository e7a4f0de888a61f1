"""A graph of clients from a file."""

from typing import ClassVar

from pydantic import Field

from fedray.scenario.base import FilePath, Section


class GraphFile(Section):
    """A graph of clients that a file says. Text or CSV: each line a client's number and those of its
    neighbours, or one edge; what follows a # is a remark (networkx writes such files as edge lists without
    data, and as adjacency lists). JSON: lists of neighbours by client, or a list of pairs. With metropolis
    either of two neighbours may name the other; with push_sum a client sends to those that it names."""

    file: FilePath = Field(
        description="The file, relative to the scenario's file; JSON where its name ends in .json."
    )

    verify_inputs: ClassVar[str | None] = "fedray.data.graph_file:read_graph"
