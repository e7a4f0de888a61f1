"""Texts in samples of tokens, and byte pairs that their owners agree on without showing a text."""

import os
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray import shipped
from fedray.checks import check
from fedray.data import dataset_info, holdings, open_source
from fedray.data.tokenizer import MASK, train
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.data import Text
from tests.data.pair_counts import Owner, agree, reference
from tests.helpers import garments

CORPUS = sorted((shipped.HERE / "shakespeare").glob("*.txt"))
LANGUAGE = {"model": {"kind": "transformer", "objective": "masked_language"}}


def section(path="texts", **options):
    return Text.model_validate({"kind": "text", "path": path, "partition": {"kind": "folder"}, **options})


def put(folder, **texts):
    """Files by name, in a folder "texts"; a double underscore leads into a folder."""
    for name, text in texts.items():
        file = folder / "texts" / (name.replace("__", "/") + ".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def whole(samples, k):
    """A file's samples in a row, as text."""
    return samples.tokenizer.decode(
        samples.blocks[samples.labels == k].ravel().tolist(), skip_special_tokens=False
    )


# --- samples


def test_samples_are_a_files_consecutive_blocks_and_its_end_is_held_out(tmp_path):
    a, b = "".join(map(str, range(100))), "one two three four five " * 5
    put(tmp_path, a=a, b=b)
    data = section(length=10, held_out=0.25)
    ours, test = open_source(data, tmp_path), open_source(data, tmp_path, "test")
    for k, text in enumerate((a, b)):
        cut = round(len(text) * 0.75)
        assert whole(ours, k) == text[: cut // 10 * 10]
        assert whole(test, k) == text[cut:][: (len(text) - cut) // 10 * 10]
        mine = np.flatnonzero(ours.labels == k)
        assert [ours.captions[i] for i in mine[:2]] == [text[:10], text[10:20]]
        assert ours.label_names[k] == "ab"[k]
    tokens = ours.tokens(np.array([2, 0]))
    assert (tokens.dtype, tokens.shape) == (np.int64, (2, 10))
    assert ours.tokenizer.decode(tokens[0].tolist()) == a[20:30]
    assert not list(ours.unreadable({0: np.arange(len(ours))}))


@given(st.text(min_size=80).filter(lambda text: len(text.encode()) > 100))
def test_no_text_is_lost_in_tokens_whatever_it_says(text):
    for vocabulary in (0, 260):
        tokenizer = train([text + "abcabcabcab"], vocabulary)
        for words in (text, f"{text}{MASK}"):
            ids = tokenizer.encode(words).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == words
            assert 0 not in ids  # [MASK] is for learners to set, even where a text spells it out


def test_a_byte_is_a_token_and_there_is_one_more(tmp_path):
    put(tmp_path, a="aä€\n" * 20)
    known = dataset_info(section(length=8), tmp_path)
    assert (known.tokenizer.get_vocab_size(), known.length, known.label_names) == (257, 8, ["a"])
    assert known.tokenizer.token_to_id(MASK) == 0
    assert len(known.tokenizer.encode("aä€\n").ids) == 1 + 2 + 3 + 1


def test_a_byte_order_mark_is_no_letter(tmp_path):
    put(tmp_path, a=b"\xef\xbb\xbf" + b"abcdefgh" * 20)
    assert open_source(section(length=8), tmp_path).captions[0] == "abcdefgh"


def test_a_client_is_a_folder_or_a_file_where_there_are_none(tmp_path):
    put(tmp_path / "flat", a="x" * 99, b="y" * 99)
    put(tmp_path / "deep", anna__1="x" * 99, anna__2__3="y" * 99, ben__1="z" * 99)
    flat, deep = (open_source(section(length=9), tmp_path / name) for name in ("flat", "deep"))
    assert flat.label_names == ["a", "b"]
    assert list(dict.fromkeys(flat.groups)) == ["a", "b"]
    assert deep.label_names == ["anna/1", "anna/2/3", "ben/1"]
    assert Counter(deep.groups) == {"anna": 18, "ben": 9}
    one = open_source(section("texts/a.txt", length=9), tmp_path / "flat")
    assert (one.label_names, set(one.groups)) == (["a"], {"a"})


@pytest.mark.parametrize("kind", ["folder", "iid", "dirichlet", "shards", "quantity"])
def test_every_partition_deals_out_every_sample_once(kind, tmp_path):
    alpha = {"alpha": 1.0} if kind in ("dirichlet", "quantity") else {}
    data = {"kind": "text", "path": "shipped:shakespeare", "partition": {"kind": kind, **alpha}}
    file = garments(tmp_path, {**LANGUAGE, "data": data, "population": {"clients": 10}})
    samples, held = holdings(check(file).scenario, tmp_path)
    assert sorted(np.concatenate(list(held.values())).tolist()) == list(range(len(samples)))
    if kind == "folder":
        assert [set(samples.labels[held[c]]) for c in range(10)] == [{c} for c in range(10)]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ({}, {}, "data.path: got 'texts', expected a folder of text files"),
        ({"a": ""}, {}, r"a\.txt with 0 tokens to train on, expected at least data.length, 64"),
        ({"a": "word " * 99, "b": "short"}, {}, r"b\.txt with \d tokens to train on"),
        ({"a": b"\xff\xfe" * 99}, {}, r"a\.txt, which cannot be read: .*expected text in UTF-8"),
        ({"a": "word " * 40}, {}, "data.held_out: got 0.1, expected more: no file's end fills a sample"),
        # 178 = 128 + 32 + 16 + 2 letters: seven doublings, and three merges of what is left
        (
            {"a": "aa" * 99},
            {"tokenizer": {"kind": "bpe", "vocabulary": 300}},
            "data.tokenizer.vocabulary: got 300, expected at most 267",
        ),
        (
            {"a": "word " * 99},
            {"path": "shipped:shakespear"},
            r"data.path: got 'shipped:shakespear', expected one of .*shipped:shakespeare",
        ),
    ],
)
def test_what_cannot_be_cut_into_samples_is_refused(texts, options, message, tmp_path):
    put(tmp_path, **texts)
    with pytest.raises(Refused, match=message):
        open_source(section(**options), tmp_path)


def test_a_folder_without_texts_is_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.md").write_text("no text file")
    with pytest.raises(Refused, match=r"without texts, expected files \*\.txt in it"):
        open_source(section(), tmp_path)


def test_a_file_that_has_changed_is_read_again(tmp_path):
    data = section(length=8)
    put(tmp_path, a="before, " * 20)
    assert open_source(data, tmp_path).captions[0] == "before, "
    put(tmp_path, a="behind, " * 20)
    os.utime(tmp_path / "texts" / "a.txt", ns=(1, 1))
    assert open_source(data, tmp_path).captions[0] == "behind, "


def test_text_has_no_pixels(tmp_path):
    samples = open_source(section(length=8), put(tmp_path, a="word " * 40))
    with pytest.raises(ValueError, match="no images"):
        samples.image(0)
    with pytest.raises(ValueError, match="no pixels"):
        samples.pixels(np.arange(2), 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.held_out": 0.0}, "data.held_out"),
        ({"data.held_out": 1.0}, "data.held_out"),
        ({"data.tokenizer": {"kind": "bpe", "vocabulary": 257}}, "vocabulary"),
        ({"model": {"kind": "classifier"}}, "model.kind: got classifier on text, expected transformer"),
        (
            {"model.objective": "masked_image"},
            "model.objective: got masked_image on text, expected masked_language",
        ),
        ({"population": {"clients": 9}}, "population.clients: got 9 for 10 folders"),
    ],
)
def test_scenarios_that_do_not_fit_text_are_refused(changes, message, tmp_path):
    data = {"kind": "text", "path": "shipped:shakespeare", "partition": {"kind": "folder"}}
    with pytest.raises(ScenarioError, match=message):
        check(garments(tmp_path, {**LANGUAGE, "data": data, "population": {"clients": 10}, **changes}))


def test_the_shipped_corpus_is_ten_speakers_of_at_most_32_kib():
    assert len(CORPUS) == 10
    for file in CORPUS:
        assert 20_000 < file.stat().st_size <= 32 * 1024
        assert file.read_text().endswith("\n")
    assert "public domain" in (shipped.HERE / "shakespeare" / "README.md").read_text()


# --- byte pairs


@pytest.mark.parametrize("vocabulary", [257, 258, 700])
def test_the_merges_are_those_that_the_texts_owners_agree_on_by_counts_alone(vocabulary):
    texts = [file.read_text() for file in CORPUS]
    learned, agreed = train(texts, vocabulary), reference(texts, vocabulary)
    assert learned.get_vocab() == agreed.get_vocab()
    assert [learned.encode(text).ids for text in texts] == [agreed.encode(text).ids for text in texts]
    assert learned.to_str() == agreed.to_str()  # the merges in their order, and all else


@given(
    st.lists(st.text("ab ", max_size=40) | st.text(max_size=20), min_size=1, max_size=3),
    st.integers(257, 300),
)
def test_whatever_the_texts_and_whichever_pairs_are_equally_frequent_the_merges_are_those(texts, vocabulary):
    agreed = reference(texts, vocabulary)
    if isinstance(agreed, int):
        with pytest.raises(Refused, match=f"got {vocabulary}, expected at most {agreed}:"):
            train(texts, vocabulary)
    else:
        assert train(texts, vocabulary).to_str() == agreed.to_str()


def central(words, tokens, vocabulary):
    """The textbook's algorithm on all words in one place, counting everything anew each time."""
    words, merges = [list(word) for word in words], []
    while len(tokens) < vocabulary:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            return None
        a, b = pair = min(counts, key=lambda pair: (-counts[pair], pair))
        if tokens[a] + tokens[b] not in tokens:
            tokens.append(tokens[a] + tokens[b])
        new = tokens.index(tokens[a] + tokens[b])
        if (tokens[a], tokens[b]) not in merges:
            merges.append((tokens[a], tokens[b]))
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == pair:
                    word[i : i + 2] = [new]
                i += 1
    return merges


@given(
    st.lists(st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=5), min_size=1, max_size=4),
    st.integers(3, 12),
)
def test_owners_agree_on_what_one_place_with_all_words_would_learn(owned, vocabulary):
    expected = central([word for words in owned for word in words], theirs := list("abc"), vocabulary)
    owners, ours = [Owner(words) for words in owned], list("abc")
    assert agree(owners, ours, vocabulary) == expected
    assert ours == theirs


def test_nothing_but_counts_of_pairs_leaves_an_owner():
    class Overheard:
        def __init__(self, words):
            self._owner = Owner(words)

        def counts(self):
            return self._tell(self._owner.counts())

        def merge(self, pair, new):
            return self._tell(self._owner.merge(pair, new))

        def _tell(self, message):
            told.append(message)
            return message

    told = []
    agree([Overheard([[0, 1, 2, 0, 1]] * 3), Overheard([[1, 2]])], list("abc"), 5)
    assert told[:2] == [{(0, 1): 6, (1, 2): 3, (2, 0): 3}, {(1, 2): 1}]
    assert all(type(n) is int for message in told for pair, n in message.items() for n in (*pair, n))


def test_the_held_out_ends_have_no_say_in_the_tokens(tmp_path):
    data = section(length=4, held_out=0.5, tokenizer={"kind": "bpe", "vocabulary": 262})
    found = []
    for end in ("u" * 80, "v" * 80):
        put(tmp_path, a="ab cd ef ab cd ab gh" * 4 + end)
        os.utime(tmp_path / "texts" / "a.txt", ns=(ord(end[0]), 1 + ord(end[0])))
        found.append(open_source(data, tmp_path).tokenizer.get_vocab())
    assert found[0] == found[1]
    assert "ab" in found[0]
