"""Conversations of JSON lines: read in the forms that others write, dealt to clients, held out, and refused
by file and line where there is nothing to learn from."""

import json
import os
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedray.data import open_source
from fedray.data.partition import ByColumnPartition, DirichletPartition
from fedray.data.sources import source
from fedray.runs.fingerprint import of_data
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.data import Data
from tests.helpers import check, garments

SECTIONS = TypeAdapter(Data)
# github.com/tatsu-lab/stanford_alpaca, README.md, "Data Release", for examples with a non-empty input field
PUBLISHED = """Below is an instruction that describes a task, paired with an input that \
provides further context. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:"""


def section(path="said", partition=None, **options):
    data = {"kind": "instructions", "path": path, "partition": partition or {"kind": "folder"}, **options}
    return SECTIONS.validate_python(data)


def put(folder, **files):
    """Files of rows in a folder "said"; a double underscore leads into a folder."""
    for name, rows in files.items():
        file = folder / "said" / (name.replace("__", "/") + ".jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def asked(n, **more):
    return [{"prompt": f"question {i}", "completion": f"answer {i}", **more} for i in range(n)]


def read(folder, split="train", **options):
    return open_source(section(**options), folder, split)


def turns(samples):
    return [[tuple(turn) for turn in samples.conversation(i)] for i in range(len(samples))]


# --- forms


def test_every_form_becomes_a_conversation_that_the_assistant_ends(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "Hello?\u2028"}
    answer = {"role": "assistant", "content": " Hello! "}
    rows = [
        {"messages": [system, user, answer, user, answer]},
        {"prompt": "Hello?", "completion": " Hello!"},
        {"prompt": [system, user], "completion": [answer], "prompt_id": 3},
        {"instruction": "Add {input}.", "input": "1 {instruction} 2", "output": "3"},
        {"instruction": "Say {x}.", "input": "", "output": "x", "text": "whatever"},
        {"instruction": "Say y.", "input": None, "output": "y"},
        {"messages": [user, answer | {"tool_calls": None}], "prompt": "of UltraChat", "prompt_id": "a"},
    ]
    s, u, a = (("system", "Be brief."), ("user", "Hello?\u2028"), ("assistant", " Hello! "))
    first, _, second = PUBLISHED.partition("\n\n### Instruction:\n{instruction}")
    given = second.removesuffix("\n\n### Response:").replace("{input}", "1 {instruction} 2")
    expected = [
        [s, u, a, u, a],
        [("user", "Hello?"), ("assistant", " Hello!")],
        [s, u, a],
        [("system", first), ("user", f"Add {{input}}.{given}"), ("assistant", "3")],
        [("user", "Say {x}."), ("assistant", "x")],
        [("user", "Say y."), ("assistant", "y")],
        [u, a],
    ]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    put(tmp_path, a="\ufeff" + text.replace("\n\n", "\r\n \n"))
    samples = read(tmp_path, held_out=0.0)
    assert turns(samples) == expected
    assert samples.captions[2] == "system: Be brief.\nuser: Hello?\u2028\nassistant:  Hello! "
    assert not list(samples.unreadable({0: np.arange(len(samples))}))


@pytest.mark.parametrize(
    ("given", "said"),
    [("append", "Add. 1 and 2"), ("alone", "1 and 2"), ("ignore", "Add.")],
)
def test_an_alpaca_input_goes_where_the_scenario_says(given, said, tmp_path):
    rows = [{"instruction": "Add.", "input": x, "output": "3"} for x in ("1 and 2", "", " ")]
    samples = read(put(tmp_path, a=rows), input=given, held_out=0.0)
    assert turns(samples) == [[("user", text), ("assistant", "3")] for text in (said, "Add.", "Add.")]


BAD = {
    "no JSON": ('{"prompt": ', "no JSON \\(Expecting value: .*\\), expected one JSON object a line"),
    "brackets": ("[" * 100_000, "brackets within brackets, too deep to read"),
    "a list": ("[1, 2]", "a list, expected an object: {"),
    "no known form": (
        '{"question": "secret", "answer": "secret"}',
        'keys \'question\', \'answer\', expected {"messages": .*}, {"prompt", "completion"} or {"instr',
    ),
    "an answer that is null": (
        '{"prompt": "secret", "completion": null}',
        r"keys .* \('completion' null\), ",
    ),
    "two forms": (
        '{"prompt": "a", "completion": "b", "instruction": "a", "output": "b"}',
        "'prompt', 'completion', 'instruction', 'output' at once, expected",
    ),
    "no object": ("{}", "an object without keys, expected"),
    "a question at the end": (
        '{"messages": [{"role": "user", "content": "secret"}]}',
        "a conversation that ends with the user, expected the assistant's answer at its end",
    ),
    "nobody asks": ('{"messages": [{"role": "assistant", "content": "secret"}]}', "without a user"),
    "no message": ('{"messages": []}', "no message, expected a conversation"),
    "an empty completion": ('{"prompt": "secret", "completion": " \\n"}', r"an empty answer \(turn 2\)"),
    "an empty output": ('{"instruction": "secret", "output": ""}', r"an empty answer \(turn 2\)"),
    "an empty turn": (
        '{"messages": [{"role": "user", "content": "secret"}, {"role": "assistant", "content": ""}, '
        '{"role": "user", "content": "secret"}, {"role": "assistant", "content": "secret"}]}',
        r"an empty answer \(turn 2\)",
    ),
    "an unknown role": (
        '{"messages": [{"role": "human", "content": "secret"}]}',
        "messages, whose message 1 has role 'human', expected a role of system, user, assistant",
    ),
    "words as a role": ('{"messages": [{"role": "secret words", "content": ""}]}', "a role of other words"),
    "ShareGPT's turns": (
        '{"messages": [{"from": "human", "value": "x"}]}',
        "has 'from', 'value', expected role and",
    ),
    "a tool's call": (
        '{"messages": [{"role": "assistant", "content": "secret", "tool_calls": [1]}]}',
        "message 1 has 'tool_calls', expected role and content alone",
    ),
    "contents in parts": (
        '{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
        "message 1, content that is a list, expected a text",
    ),
    "a message that is none": ('{"messages": ["secret"]}', "message 1 is a text, expected an object"),
    "messages that are none": ('{"messages": "secret"}', "messages that is a text, expected a list"),
    "a text and a list": (
        '{"prompt": "secret", "completion": [1]}',
        "a text and a completion that is a list",
    ),
    "a user's completion": (
        '{"prompt": [], "completion": [{"role": "user", "content": "secret"}]}',
        "completion, whose message 1 is the user's, expected the assistant's alone",
    ),
    "a number": ('{"instruction": 7, "output": "secret"}', "instruction that is a number, expected a text"),
    "half a character": (
        '{"instruction": "\\ud800", "output": "secret"}',
        "instruction with half a character",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_line_that_is_no_conversation_is_refused_by_file_and_line_without_what_it_says(what, tmp_path):
    line, message = BAD[what]
    put(tmp_path, a=json.dumps(asked(1)[0]) + "\n\n" + line + "\n", b=asked(3))
    with pytest.raises(Refused, match=rf"^data\.path: got .*/said/a\.jsonl:3: .*{message}") as refused:
        read(tmp_path)
    assert "secret" not in str(refused.value).split(".jsonl", 1)[1]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, r"data.path: got 'said', expected a folder of \*\.jsonl files, or one"),
        (
            {"a": "\n \n"},
            {},
            r"data.path: got .*a\.jsonl without conversations, expected one JSON object a line",
        ),
        ({"a": asked(3), "b": []}, {}, r"b\.jsonl without conversations"),
        ({"a": asked(3)}, {"path": "shipped:no"}, "data.path: got 'shipped:no', expected one of "),
        ({"a": asked(3)}, {"test": "no"}, "data.test: got 'no', expected a folder of"),
        ({"a": asked(4)}, {}, r"data.held_out: got 0.1, expected more: of the most .* 4, none would"),
        (
            {"a": asked(3, client="x")},
            {"partition": {"kind": "column", "column": "cleint"}},
            r"partition.column: got 'cleint', which .*a.jsonl:1 lacks \(it has prompt, completion, client\), "
            r"expected client \(did you mean it\?\)",
        ),
        (
            {"a": asked(3, c=0.5)},
            {"category": "c"},
            r"data.category: got 'c', which is a float in .*:1, expected a",
        ),
        (
            {"a": [*asked(2, c=1), *asked(1, c=True)]},
            {"category": "c"},
            "'c', which is true or false in .*:3",
        ),
        ({"a": asked(3, c=None)}, {"category": "c"}, "'c', which is null in .*:1"),
        ({"a": asked(3, c=[1])}, {"category": "c"}, "'c', which is no single value in .*:1"),
        (
            {"a": asked(30)},
            {"partition": {"kind": "dirichlet", "alpha": 1.0}},
            "data.category: got none for partition dirichlet, and one file, expected the key of a line",
        ),
        ({"a": asked(30), "a__b": asked(30)}, {}, "which are one name without .jsonl"),
    ],
)
def test_files_that_do_not_make_clients_samples_are_refused(files, options, message, tmp_path):
    put(tmp_path, **files)
    with pytest.raises(Refused, match=message):
        open_source(section(**options), tmp_path, "test" if "test" in options else "train")


def test_a_file_in_another_encoding_is_refused(tmp_path):
    put(tmp_path, a=asked(3))
    (tmp_path / "said" / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match=r"a\.jsonl, which cannot be read: .*expected JSON lines in UTF-8"):
        read(tmp_path)


# --- whose they are


def test_a_client_is_a_folder_or_a_file_or_a_columns_value(tmp_path):
    put(tmp_path, ann__1=asked(3), ann__b__2=asked(2), ben=asked(4))
    samples = read(tmp_path, held_out=0.0)
    assert Counter(samples.groups) == {"ann": 5, "ben": 4}
    assert samples.label_names == ["ann/1", "ann/b/2", "ben"]
    assert samples.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 4
    one = read(tmp_path, path="said/ben.jsonl", held_out=0.0)
    assert (set(one.groups), one.label_names) == ({"ben"}, ["ben"])

    put(tmp_path / "column", a=[*asked(2, who=10), *asked(3, who=9)], b=asked(1, who=10))
    by_column = {"kind": "column", "column": "who"}
    samples = read(tmp_path / "column", partition=by_column, held_out=0.0)
    dealt = ByColumnPartition(section(partition=by_column).partition).deal(
        samples, 2, np.random.default_rng(0)
    )
    assert [dealt[0].tolist(), dealt[1].tolist()] == [[2, 3, 4], [0, 1, 5]]


def test_a_category_is_the_label_in_training_and_test(tmp_path):
    put(tmp_path, a=[*asked(8, topic="sums"), *asked(8, topic="words")])
    put(tmp_path, test=[*asked(1, topic="words"), *asked(2, topic="dates"), *asked(1, topic="sums")])
    options = {"path": "said/a.jsonl", "test": "said/test.jsonl", "category": "topic"}
    partition = {"kind": "dirichlet", "alpha": 0.1}
    train = read(tmp_path, partition=partition, **options)
    assert (train.label_names, np.bincount(train.labels).tolist()) == (["sums", "words"], [8, 8])
    dealt = DirichletPartition(section(partition=partition).partition).deal(
        train, 2, np.random.default_rng(0)
    )
    assert sorted(np.concatenate([dealt[0], dealt[1]]).tolist()) == list(range(16))
    test = read(tmp_path, "test", partition=partition, **options)
    assert test.label_names == ["sums", "words", "dates"]
    assert test.labels.tolist() == [1, 2, 2, 0]


# --- held out


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0.02, 0.9), st.integers(0, 99))
def test_the_same_share_of_every_client_is_held_out_whatever_the_order_of_lines(
    tmp_path_factory, sizes, share, seed
):
    folder = tmp_path_factory.mktemp("held-out")
    rows = {
        f"c{k}": [{"prompt": f"{k} {i}", "completion": "x"} for i in range(n)] for k, n in enumerate(sizes)
    }
    counts = {name: min(round(len(each) * share), len(each) - 1) for name, each in rows.items()}
    put(folder, **rows)
    if not any(counts.values()):
        with pytest.raises(Refused, match=r"data\.held_out"):
            read(folder, held_out=share)
        return
    train, test = (read(folder, split, held_out=share) for split in ("train", "test"))
    said = [samples.captions[i] for samples in (train, test) for i in range(len(samples))]
    assert sorted(said) == sorted(
        f"user: {row['prompt']}\nassistant: x" for each in rows.values() for row in each
    )
    assert {name: list(test.groups).count(name) for name in rows} == counts
    for each in rows.values():
        random.Random(seed).shuffle(each)
    put(folder, **rows)
    for file in (folder / "said").iterdir():
        os.utime(file, ns=(1, 1))
    assert sorted(read(folder, "test", held_out=share).captions) == sorted(test.captions)


def test_of_each_category_about_the_same_share_is_held_out(tmp_path):
    put(tmp_path, a=[{"prompt": str(i), "completion": "x", "topic": i % 3} for i in range(90)])
    test = read(tmp_path, "test", category="topic", held_out=0.2)
    assert np.bincount(test.labels).tolist() == [6, 6, 6]


def test_a_tenth_is_held_out_unless_something_else_is_tested_on():
    sites = {"north": {"folders": ["a"]}}
    options = [{}, {"test": "t"}, {"sites": sites}, {"holdout": 0.2}, {"held_out": 0.5}, {"held_out": 0.0}]
    said = [section(**each) for each in options]
    assert [s.held_out_share for s in said] == [0.1, 0.0, 0.0, 0.0, 0.5, 0.0]
    assert [s.has_test_set for s in said] == [True, True, False, False, True, False]


# --- sites, scenarios and resume


def test_a_site_reads_its_own_folders_and_files_and_nothing_else(tmp_path):
    put(tmp_path, ann__1=asked(3), ben=asked(2), cat__1='{"secret": 1}', dan='{"secret": 1}')
    sites = {"south": {"folders": ["dan", "cat"]}, "north": {"folders": ["ben", "ann"], "path": "said"}}
    at_sites = section(path="nowhere", sites=sites)
    samples, held = source(at_sites, tmp_path).open_at_site("north")
    assert {client: len(indices) for client, indices in held.items()} == {2: 2, 3: 3}
    assert {samples.groups[i] for i in held[2]} == {"ben"}
    with pytest.raises(Refused, match=r"^data.sites.south.path: got 'nowhere', expected a folder of"):
        source(at_sites, tmp_path).open_at_site("south")
    (tmp_path / "said" / "ann" / "2.jsonl").symlink_to("../dan.jsonl")
    (tmp_path / "said" / "dan.jsonl").rename(tmp_path / "said" / "moved.jsonl")
    sites["south"] = {"folders": ["dan"], "path": "said"}
    with pytest.raises(
        Refused, match=r"no conversations of 'dan', expected a folder with \*\.jsonl in it, or a"
    ):
        source(section(sites=sites), tmp_path).open_at_site("south")


def test_a_link_into_another_clients_folder_is_refused(tmp_path):
    put(tmp_path, ann__1=asked(3), ben__1=asked(2))
    (tmp_path / "said" / "ben" / "2.jsonl").symlink_to("../ann/1.jsonl")
    with pytest.raises(Refused, match="'ann' and 'ben' both hold"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "model.kind: got classifier on conversations, expected language_model"),
        (
            {"held_out": 0.2, "test": "said"},
            "data.held_out: got 0.2 beside data.test, expected one of the two",
        ),
        ({"held_out": 0.2, "sites": {"n": {"folders": ["a"]}}}, "data.held_out: got 0.2 beside data.sites, "),
        ({"category": "c", "sites": {"n": {"folders": ["a"]}}}, "data.category: got 'c' beside data.sites, "),
        (
            {"sites": {"n": {"folders": ["a"]}}},
            "runtime.executor: got serial, expected ray, since data.sites",
        ),
        ({"sites": {"n": {"folders": ["a", "b"]}}}, "population.clients: got 1 for 2 folders of data.sites"),
        ({"held_out": 1.0}, "data.held_out: got 1.0, expected a number below 1"),
        ({"category": ""}, "data.category: got '', expected"),
    ],
)
def test_sections_that_do_not_go_together_are_refused_with_their_line(changes, line, tmp_path):
    put(tmp_path, a=asked(20))
    data = {"kind": "instructions", "path": "said", "partition": {"kind": "folder"}, **changes}
    with pytest.raises(ScenarioError) as caught:
        check(garments(tmp_path, {"data": data, "population": {"clients": 1}}))
    assert any(re.search(rf":\d+: {re.escape(line)}", problem) for problem in caught.value.problems), (
        caught.value
    )


def test_other_words_owners_or_categories_are_other_data_for_a_run_that_goes_on(tmp_path):
    def belongs(name, rows, held):
        samples = read(put(tmp_path / name, a=rows), category="c", held_out=0.0)
        return of_data(samples, held)

    rows = [{"prompt": str(i), "completion": "x", "c": "a"} for i in range(4)]
    held = {0: np.arange(2), 1: np.arange(2, 4)}
    before = belongs("before", rows, held)
    assert belongs("same", rows, held) == before
    others = [
        belongs("said", [{**rows[0], "completion": "y"}, *rows[1:]], held),
        belongs("category", [{**rows[0], "c": "b"}, *rows[1:]], held),
        belongs("held", rows, {0: np.arange(3), 1: np.arange(3, 4)}),
    ]
    assert [[key for key in before if other[key] != before[key]] for other in others] == [
        ["contents of samples"],
        ["labels and captions"],
        ["partition"],
    ]


def test_a_resolved_scenario_finds_its_files_from_anywhere(tmp_path):
    from fedray.scenario import load

    data = {"kind": "instructions", "path": "said", "test": "more", "partition": {"kind": "iid"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedray.scenario.model.Classifier.of_conversations", True)
        loaded = load(garments(tmp_path, {"data": data}))
    assert loaded.absolute()["data"]["path"] == str(tmp_path / "said")
    assert loaded.absolute()["data"]["test"] == str(tmp_path / "more")
