"""Hundreds of shipped scenarios with a mistake or three in them, as a tired hand makes them."""

import random
import re

from fedray import shipped

MUTANTS = 600
JUNK = [
    *(
        "null",
        "~",
        "-1",
        "0",
        "1e400",
        ".nan",
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        "[1, [2]]",
        "{kind: lora}",
        "yes",
        "off",
    ),
    *(
        "2026-11-21",
        "!!python/object:os.system",
        "&a",
        "*a",
        "<<: *a",
        "#",
        "-",
        "- ",
        ": ",
        "\t",
        "é",
        "\u2028",
        "../../etc",
        "0x1f",
    ),
    *("1_000", "9" * 40, "x" * 300),
]


def mutated(text, rng):
    lines = text.split("\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(lines))
        line = lines[at]
        words = list(re.finditer(r"[A-Za-z_][\w.-]*|[\d.e+-]+", line))
        match rng.randrange(9):
            case 0:
                del lines[at]
            case 1:
                lines.insert(rng.randrange(len(lines) + 1), line)
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], line
            case 3:
                lines[at] = " " * rng.randrange(5) + line.lstrip()
            case 4 if line:
                i = rng.randrange(len(line))
                lines[at] = line[:i] + line[i + 1 :]
            case 5:
                i = rng.randrange(len(line) + 1)
                lines[at] = line[:i] + rng.choice(JUNK) + line[i:]
            case 6 if words:
                word = rng.choice(words)
                lines[at] = line[: word.start()] + rng.choice(JUNK) + line[word.end() :]
            case 7 if words:  # a word from somewhere else
                word, another = rng.choice(words), rng.choice(re.findall(r"[\w.-]+", text))
                lines[at] = line[: word.start()] + another + line[word.end() :]
            case 8:
                lines[at] = line.partition(":")[0] + ":"
        if not lines:
            lines = [""]
    return "\n".join(lines)


def test_a_mutated_scenario_is_whole_or_lines_with_numbers_and_exit_code_2_never_a_traceback(
    fedray, tmp_path
):
    rng = random.Random(20261121)
    texts = [file.read_text() for file in shipped.scenarios().values()]
    files = []
    for n in range(MUTANTS):
        files.append(tmp_path / f"{n}.yaml")
        files[-1].write_text(mutated(rng.choice(texts), rng))
    code, out, err = fedray("check", *files)
    assert code == 2
    assert "Traceback" not in err
    lines = err.splitlines()
    odd = [
        line
        for line in lines
        if not re.match(rf"{re.escape(str(tmp_path))}/\d+\.yaml:\d+: .*got .*, expected .+", line)
    ]
    assert not odd, odd[:5]
    refused = {line.split(":")[0] for line in lines}
    whole = {line.split(":")[0] for line in out.splitlines()}
    assert refused | whole == {str(file) for file in files}
    assert not refused & whole
    assert len(refused) > MUTANTS / 2
