"""Makes the shipped corpus out of William Shakespeare's plays, which are in the public domain.

    curl -O https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
    uv run python tools/make_corpus.py --text input.txt --out fedray/shipped/shakespeare

One file a speaker: of the ten who say most, what they say, whole speeches in the plays' order, at most 32 KiB
each.
"""

import argparse
import hashlib
from collections import defaultdict
from pathlib import Path

SPEAKERS, MOST_BYTES = 10, 32 * 1024
README = """\
# shakespeare

What ten of William Shakespeare's characters say, a file each: those of tinyshakespeare who say most, whole speeches in the
plays' order, at most 32 KiB each.

Source: William Shakespeare (1564-1616), public domain, as in data/tinyshakespeare/input.txt of
https://github.com/karpathy/char-rnn (sha256 {sha256}). Made by `tools/make_corpus.py`.
"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()

    data = a.text.read_bytes()
    said: dict[str, list[str]] = defaultdict(list)
    for speech in data.decode("utf-8").strip().split("\n\n"):
        speaker, _, words = speech.partition(":\n")
        if words.strip():
            said[speaker].append(words.strip() + "\n")
    most = sorted(said, key=lambda name: -sum(map(len, said[name])))[:SPEAKERS]
    a.out.mkdir(parents=True, exist_ok=True)
    for name in most:
        text = ""
        for speech in said[name]:
            longer = f"{text}\n{speech}" if text else speech
            if len(longer.encode()) > MOST_BYTES:
                break
            text = longer
        (a.out / f"{name.lower().replace(' ', '-')}.txt").write_text(text, encoding="utf-8", newline="\n")
    (a.out / "README.md").write_text(README.format(sha256=hashlib.sha256(data).hexdigest()), encoding="utf-8")


if __name__ == "__main__":
    main()
