"""The instruction sets that ship: four clients, a domain each."""

import calendar
import json
import random
import re
import sys
from collections import Counter

import pytest

from fedray import shipped

PARTS = {"train": "instructions", "test": "instructions-heldout"}
TOOLS = shipped.HERE.parents[1] / "tools"


def lines(part):
    files = sorted((shipped.HERE / PARTS[part]).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def tasks(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import tiny_tasks

    yield tiny_tasks
    sys.modules.pop("tiny_tasks")


def asked(part):
    return [line["messages"][0]["content"] for line in lines(part)]


def test_instructions_are_four_clients_of_as_many_questions_each_and_none_is_in_both_parts():
    files = [file for name in PARTS.values() for file in (shipped.HERE / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 300e3
    for part, each in (("train", 200), ("test", 40)):
        clients = Counter(line["client"] for line in lines(part))
        assert clients == dict.fromkeys(("animals", "calendar", "prices", "units"), each)
    assert len({*asked("train"), *asked("test")}) == 4 * 240


def test_tiny_lm_has_seen_none_of_the_instructions(tasks):
    known = re.compile("|".join([r"\d+", *tasks.ALL_WORDS, *tasks.DAYS, *tasks.MONTHS]))
    draw = random.Random(0)
    general = {known.sub("_", tasks.question(draw)[0]) for _ in range(5000)}
    assert not general & {known.sub("_", question) for question in asked("train") + asked("test")}


def answered_by_calendar(question):
    (name,) = {*re.findall("[A-Z][a-z]+", question)} & {*calendar.day_name, *calendar.month_name}
    names = [*calendar.day_name] if name in calendar.day_name else [*calendar.month_name][1:]
    if "days" in question or "ong" in question or "length" in question:
        return f"{calendar.monthrange(2027, names.index(name) + 1)[1]} days"
    return names[(names.index(name) + 1) % len(names)]


def answered_by_units(question):
    """By what each prefix and each span of time is, in the smallest of its kind."""
    sizes = {"kilo": 1000, "centi": 0.01, "milli": 0.001, "week": 7, "hour": 60, "dozen": 12}
    n, unit = re.search(r"(\d) ([a-z]+)", question).groups()
    (goal,) = {*re.findall("(?:milli|centi)?(?:metre|litre)s|grams|days|minutes|pieces", question)} - {unit}

    def size(name):
        return next((size for prefix, size in sizes.items() if name.startswith(prefix)), 1)

    short = {"metres": "m", "centimetres": "cm", "millimetres": "mm", "grams": "g", "millilitres": "ml"}
    return f"{round(int(n) * size(unit) / size(goal))} {short.get(goal, goal)}"


def test_answers_are_right_by_another_calculation_and_one_fact_has_one_answer():
    rules = {"calendar": answered_by_calendar, "units": answered_by_units}
    answers = {}
    for line in lines("train") + lines("test"):
        question, answer = (message["content"] for message in line["messages"])
        if line["client"] in rules:
            assert rules[line["client"]](question) == answer, question
        thing = re.search(r"(?:\b[Aa]n?(?: young)?|Young) ([a-z]+)", question)
        if line["client"] in ("animals", "prices"):
            assert answers.setdefault((line["category"], thing.group(1)), answer) == answer
    assert len(answers) == 60
