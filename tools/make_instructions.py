"""Makes the instruction sets that ship with fedray: four clients, each with questions of a domain of its own.

    uv run python tools/make_instructions.py --out fedray/shipped

animals: what their young and their voices are called.
calendar: which day or month comes next, how long a month is.
prices: what things cost in a shop of our own.
units: so many of one unit in another.

Everything is made here, without a source: no licence but fedray's own. instructions has a file a client to train on,
instructions-heldout one to test on, of one conversation a line: {"messages": [...], "client": ..., "category": ...}. No
question is in both. A fact is, in other words: every fact is asked in all wordings of its kind but one or two, which
are held out. tiny-lm (tools/train_tiny_lm.py) was trained on none of these questions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tiny_tasks import DAYS, MONTHS, WORDS

TRAIN, TEST = 200, 40  # a client
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
UNITS = (  # one of the first is so many of the second, and how those are written
    ("kilometre", "metre", 1000, "m"),
    ("metre", "centimetre", 100, "cm"),
    ("centimetre", "millimetre", 10, "mm"),
    ("kilogram", "gram", 1000, "g"),
    ("litre", "millilitre", 1000, "ml"),
    ("week", "day", 7, "days"),
    ("hour", "minute", 60, "minutes"),
    ("dozen", "piece", 12, "pieces"),
)
YOUNG = (
    "cow calf, pig piglet, hen chick, sheep lamb, horse foal, goat kid, duck duckling, dog puppy, cat kitten, wolf pup, "
    "bear cub, deer fawn, frog tadpole, owl owlet, goose gosling"
)
VOICE = (
    "cow moo, pig oink, hen cluck, sheep baa, horse neigh, goat bleat, duck quack, dog bark, cat meow, wolf howl, "
    "bear growl, lion roar, frog croak, owl hoot, bee buzz"
)
OTHER_THINGS = "cup plate bowl fork hat coat shoe book map ball"
THINGS = [*WORDS["fruit"], *WORDS["tool"], *OTHER_THINGS.split()]

WORDINGS = {
    "young": (
        "What is a young {} called?",
        "Name the young of a {}.",
        "What do you call the child of a {}?",
        "A {} has young. What is one called?",
        "What does a {} look after?",
        "The young of a {} is called what?",
        "What is the child of a {} called?",
        "Young {}: the name?",
    ),
    "voice": (
        "What does a {} say?",
        "Name the voice of a {}.",
        "Which sound does a {} make?",
        "You hear a {}. What do you hear?",
        "How does a {} call?",
        "The sound of a {} is called what?",
        "What is the voice of a {} called?",
        "Voice of a {}: the name?",
    ),
    "next": (
        "What comes after {}?",
        "It is {}. What is next?",
        "What follows {}?",
        "Name what comes behind {}.",
        "{} is over. What begins?",
        "Which one starts when {} ends?",
        "If this is {}, what will come?",
        "{}, and then?",
    ),
    "length": (
        "How many days has {}?",
        "How long is {}?",
        "{} lasts how many days?",
        "Say how long {} lasts.",
        "After how many days is {} over?",
        "Name the length of {}.",
        "{}: how many days?",
        "How many days are in {}?",
    ),
    "price": (
        "What does a {} cost?",
        "How much is a {}?",
        "Name the price of a {}.",
        "I buy a {}. What do I pay?",
        "A {} costs how much?",
        "For how much do you sell a {}?",
        "What is a {} worth?",
        "What do you want for a {}?",
    ),
    "unit": (
        "How many {1}s are {0}?",
        "Write {0} in {1}s.",
        "{0} in {1}s?",
        "{0} are how many {1}s?",
        "Give {0} as {1}s.",
    ),
}
Fact = tuple[tuple[str, ...], str]  # what goes into a wording, and the answer

PARTS = {"instructions": ("train", "to train on"), "instructions-heldout": ("test", "held out, to test on")}
README = """\
# {title}

Questions with one short right answer for four clients, a domain each: {clients}. A file a client, {each}
conversations {purpose}, one a line, with the columns `client` and `category`. No question is both in
`shipped:instructions` and in `shipped:instructions-heldout`; a fact is, in other words. tiny-lm has seen none of them.

Made by `tools/make_instructions.py`, seed {seed}, from templates alone. sha256 of the files, one after another: {sha256}.
"""


def named(pairs: str) -> Iterator[Fact]:
    for pair in pairs.split(", "):
        animal, name = pair.split()
        yield (animal,), name


def followed() -> Iterator[Fact]:
    for names in (DAYS, MONTHS):
        for i, name in enumerate(names):
            yield (name,), names[(i + 1) % len(names)]


def prices() -> Iterator[Fact]:
    draw = random.Random("prices")
    for thing in THINGS:
        yield (thing,), f"{draw.randint(2, 99)} cents"


def units() -> Iterator[Fact]:
    for one, other, times, short in UNITS:
        for n in range(1, 7):
            yield (f"{n} {one}" if n == 1 else f"{n} {one}s", other), f"{n * times} {short}"


DOMAINS: dict[str, dict[str, list[Fact]]] = {
    "animals": {"young": [*named(YOUNG)], "voice": [*named(VOICE)]},
    "calendar": {
        "next": [*followed()],
        "length": [((name,), f"{days} days") for name, days in zip(MONTHS, LENGTHS, strict=True)],
    },
    "prices": {"price": [*prices()]},
    "units": {"unit": [*units()]},
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    clients = {client: drawn(client, facts, a.seed) for client, facts in DOMAINS.items()}
    for title, (part, purpose) in PARTS.items():
        folder = a.out / title
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        for client, lines in clients.items():
            data = "".join(lines[part]).encode()
            (folder / f"{client}.jsonl").write_bytes(data)
            digest.update(data)
        text = README.format(
            title=title,
            clients=", ".join(clients),
            each={"train": TRAIN, "test": TEST}[part],
            purpose=purpose,
            seed=a.seed,
            sha256=digest.hexdigest(),
        )
        (folder / "README.md").write_text(text, encoding="utf-8")


def drawn(client: str, facts: dict[str, list[Fact]], seed: int) -> dict[str, list[str]]:
    """A client's lines, to train and to test on. Held out is of each fact in turn one wording, at most two."""
    draw = random.Random(f"{seed} {client}")
    first: list[str] = []  # a wording of each fact, then another of each, and so on
    by_turn: list[list[str]] = []
    for category, of_category in facts.items():
        for values, answer in of_category:
            wordings = draw.sample(WORDINGS[category], len(WORDINGS[category]))
            asked = [with_articles(wording.format(*values)) for wording in wordings]
            by_turn.append([line(question, answer, category, client) for question in asked])
    draw.shuffle(by_turn)
    for turn in range(max(map(len, by_turn))):
        first += [lines[turn] for lines in by_turn if turn < len(lines)]
    test, train = first[:TEST], first[TEST : TEST + TRAIN]
    draw.shuffle(test)
    draw.shuffle(train)
    return {"train": train, "test": test}


def with_articles(question: str) -> str:
    words = question.split(" ")
    for i, word in enumerate(words[1:]):
        if words[i] in ("a", "A") and word[0] in "aeiou":
            words[i] += "n"
    return " ".join(words)


def line(question: str, answer: str, category: str, client: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages, "client": client, "category": category}) + "\n"


if __name__ == "__main__":
    main()
