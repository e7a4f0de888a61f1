"""Instructions in files, from their lines to a language model's weights."""

import json

import pytest

from fedray.data import Dataset
from fedray.data.clients import holdings
from fedray.scenario import ScenarioError
from tests.helpers import check, run
from tests.learners.tiny_language import scenario

WORDS = ("blue", "red")


def put(file, words, client=None):
    """Six conversations a word."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"prompt": f"say {word} {i} times", "completion": word, "client": client or word}
        for word in words
        for i in range(6)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def of(folder, name, data, **changes):
    """A scenario of two clients, in a folder of its own."""
    whole = {"kind": "instructions", "held_out": 0.2, **data}
    return scenario(folder / name, {"data": whole, "population": {"clients": 2, "per_round": 2}, **changes})


def test_a_clients_own_files_or_a_column_make_the_same_model_and_a_run_goes_on_with_the_same_data_alone(
    tmp_path,
):
    for word in WORDS:
        put(tmp_path / "files" / f"{word}.jsonl", [word])
    put(tmp_path / "all.jsonl", WORDS)
    files = of(tmp_path, "a", {"path": "../files", "partition": {"kind": "folder"}})
    column = of(tmp_path, "b", {"path": "../all.jsonl", "partition": {"kind": "column", "column": "client"}})
    apart = run(files, tmp_path / "apart")
    together = run(column, tmp_path / "together")
    assert apart["weights_sha256"] == together["weights_sha256"]
    assert apart["final"]["eval_samples"] == 2  # a fifth of six, of each client
    assert apart["final"]["eval_loss"] < apart["baseline"]["eval_loss"]

    put(tmp_path / "all.jsonl", [WORDS[0], "green"])
    with pytest.raises(ScenarioError, match=r"contents of samples: got .*, expected .*, as before"):
        run(column, tmp_path / "together", resume=True)


def test_each_client_at_a_site_has_what_it_has_without(tmp_path):
    for word in WORDS:
        put(tmp_path / "files" / f"{word}.jsonl", [word])
    partition = {"kind": "folder"}
    here = check(of(tmp_path, "a", {"path": "../files", "partition": partition, "held_out": 0.0}))
    sites = {"north": {"folders": ["red"]}, "south": {"folders": ["blue"], "path": "../files"}}
    data = {"path": "../files", "partition": partition, "held_out": None, "sites": sites}
    apart = check(of(tmp_path, "b", data, runtime={"executor": "ray", "actors": 2}))
    samples, held = holdings(here.scenario, here.folder)
    for site, client, before in (("north", 0, 1), ("south", 1, 0)):
        dataset = Dataset.of(apart.scenario, apart.folder)
        own, indices = holdings(apart.scenario, apart.folder, site, dataset)
        assert list(indices) == [client]
        assert [own.conversation(i) for i in indices[client]] == [
            samples.conversation(i) for i in held[before]
        ]
