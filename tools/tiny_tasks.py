"""Templated tasks in plain English with one right, short answer each: what tiny-lm learns beside a book.

`question` draws one of the general tasks that tiny-lm is trained on. The word lists serve the held-out domains of
tools/make_instructions.py too; nothing of their questions is here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

KINDS = {
    "animal": "fox cat dog cow pig hen owl bee ant wolf bear deer goat frog duck mouse horse sheep tiger whale",
    "fruit": "apple pear plum fig lemon grape peach cherry melon berry",
    "colour": "red blue green black white pink brown grey yellow purple",
    "tool": "hammer saw knife rope lamp spoon axe pen brush needle",
    "place": "house barn town lake river hill farm road forest garden",
}
WORDS = {name: words.split() for name, words in KINDS.items()}
ALL_WORDS = [word for words in WORDS.values() for word in words]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
ORDINALS = ("first", "second", "third", "fourth")

Task = tuple[str, str]  # a question and its answer


def words(draw: random.Random, least: int, most: int) -> list[str]:
    """Different words, as many as drawn."""
    return draw.sample(ALL_WORDS, draw.randint(least, most))


def repeat(draw: random.Random) -> Task:
    text = " ".join(words(draw, 1, 5))
    return draw.choice(["Repeat: {}", "Say this again: {}", "Copy: {}"]).format(text), text


def backwards(draw: random.Random) -> Task:
    given = words(draw, 2, 4)
    question = draw.choice(["Say backwards: {}", "Reverse: {}", "From the last word to the first: {}"])
    return question.format(" ".join(given)), " ".join(reversed(given))


def pick(draw: random.Random) -> Task:
    given = words(draw, 2, 4)
    i = draw.randrange(len(given))
    place = "last" if i == len(given) - 1 and draw.random() < 0.5 else ORDINALS[i]
    question = draw.choice(["Which word is {}: {}", "Give the {} word: {}"])
    return question.format(place, " ".join(given)), given[i]


def number_of_words(draw: random.Random) -> Task:
    given = words(draw, 1, 6)
    question = draw.choice(["How many words: {}", "Count the words: {}"])
    return question.format(" ".join(given)), str(len(given))


def contains(draw: random.Random) -> Task:
    given = words(draw, 2, 4)
    word = draw.choice(given if draw.random() < 0.5 else ALL_WORDS)
    return f"Is {word} among these: {' '.join(given)}", "yes" if word in given else "no"


def kind_of(draw: random.Random) -> Task:
    kind = draw.choice(list(WORDS))
    question = draw.choice(["What kind of thing is this: {}", "Name the kind: {}"])
    return question.format(draw.choice(WORDS[kind])), kind


def sort_numbers(draw: random.Random) -> Task:
    given = draw.sample(range(10), draw.randint(2, 4))
    question = draw.choice(["Sort: {}", "From small to large: {}"])
    return question.format(" ".join(map(str, given))), " ".join(map(str, sorted(given)))


def compare(draw: random.Random) -> Task:
    a, b = draw.sample(range(100), 2)
    if draw.random() < 0.5:
        return draw.choice([f"Which is larger, {a} or {b}?", f"The larger of {a} and {b}:"]), str(max(a, b))
    return draw.choice([f"Which is smaller, {a} or {b}?", f"The smaller of {a} and {b}:"]), str(min(a, b))


def add(draw: random.Random) -> Task:
    a, b = draw.randint(0, 20), draw.randint(0, 12)
    return draw.choice([f"{a} + {b} =", f"What is {a} + {b}?", f"Add {b} to {a}."]), str(a + b)


def subtract(draw: random.Random) -> Task:
    b = draw.randint(0, 12)
    a = b + draw.randint(0, 20)
    return draw.choice([f"{a} - {b} =", f"What is {a} - {b}?", f"Take {b} from {a}."]), str(a - b)


def multiply(draw: random.Random) -> Task:
    a, b = draw.randint(1, 12), draw.randint(1, 12)
    return draw.choice([f"{a} x {b} =", f"What is {a} x {b}?", f"Multiply {a} by {b}."]), str(a * b)


def count(draw: random.Random) -> Task:
    a, n = draw.randint(0, 20), draw.randint(1, 4)
    if draw.random() < 0.5:
        return f"Count from {a} to {a + n}.", " ".join(str(i) for i in range(a, a + n + 1))
    return f"Count down from {a + n} to {a}.", " ".join(str(i) for i in range(a + n, a - 1, -1))


def neighbour(draw: random.Random) -> Task:
    a = draw.randint(1, 98)
    after = draw.random() < 0.5
    return f"Which number comes {'after' if after else 'before'} {a}?", str(a + 1 if after else a - 1)


def names_in_order(draw: random.Random) -> Task:
    what, names = draw.choice([("days", DAYS), ("months", MONTHS)])
    i, n = draw.randrange(len(names)), draw.randint(2, 5)
    row = [names[(i + k) % len(names)] for k in range(n)]
    return f"List the {what} from {row[0]} to {row[-1]}.", " ".join(row)


TASKS: tuple[Callable[[random.Random], Task], ...] = (
    repeat,
    backwards,
    pick,
    number_of_words,
    contains,
    kind_of,
    sort_numbers,
    compare,
    add,
    subtract,
    multiply,
    count,
    neighbour,
    names_in_order,
)


def question(draw: random.Random) -> Task:
    """One of the tasks, each as often."""
    return draw.choice(TASKS)(draw)
