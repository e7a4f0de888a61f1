"""The forms that a line of instructions may have: TRL's conversations, its prompts with completions, and
Alpaca's instructions."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedray.data.conversations import Conversation, Message
from fedray.errors import printable, shortened

ROLES = ("system", "user", "assistant")
# the keys that a line of a form has; an Alpaca line may have an input, too
FORMS = (("messages",), ("prompt", "completion"), ("instruction", "output"))
EXPECTED = (
    '{"messages": [{"role", "content"}, ...]}, {"prompt", "completion"} or {"instruction", "input", "output"}'
)
MOST_KEYS = 8  # that are named of a line in none of the forms
# of Alpaca's prompt for an instruction with an input (github.com/tatsu-lab/stanford_alpaca, README.md)
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
INPUT = "\n\n### Input:\n"


class Unfit(ValueError):
    """A line that is no conversation to learn from: what was got, without what it says, and what was
    expected."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"got {got}, expected {expected}")
        self.got = got
        self.expected = expected


def conversation(row: Any, given: str) -> Conversation:
    """The conversation of a line. A prompt that is a text, or an instruction, is what a user says, and a
    completion or output is the answer.

    Args:
        row: what the line's JSON says.
        given: what becomes of an Alpaca line's input, as the section's `input` has it.

    Raises:
        Unfit: for another form, and for a conversation that ends without an answer.
    """
    if not isinstance(row, Mapping):
        raise Unfit(f"a {_type(row)}", f"an object: {EXPECTED}")
    forms = [form for form in FORMS if all(row.get(key) is not None for key in form)]
    if len(forms) != 1:
        raise Unfit(_keys(row) if not forms else f"{_listed(sum(forms, ()))} at once", EXPECTED)
    if forms[0] == ("messages",):
        turns = _turns(row["messages"], "messages")
    elif forms[0] == ("prompt", "completion"):
        turns = _completed(row)
    else:
        turns = _instructed(row, given)
    _refuse_unanswered(turns)
    return tuple(turns)


def _completed(row: Mapping[str, Any]) -> list[Message]:
    prompt = row["prompt"]
    completion = row["completion"]
    if isinstance(prompt, str) != isinstance(completion, str):
        got = f"a prompt that is a {_type(prompt)} and a completion that is a {_type(completion)}"
        raise Unfit(got, "two texts, or two lists of messages")
    if isinstance(prompt, str):
        return [
            Message("user", _text(prompt, "prompt")),
            Message("assistant", _text(completion, "completion")),
        ]
    answers = _turns(completion, "completion")
    for number, turn in enumerate(answers, 1):
        if turn.role != "assistant":
            raise Unfit(f"completion, whose message {number} is the {turn.role}'s", "the assistant's alone")
    return [*_turns(prompt, "prompt"), *answers]


def _instructed(row: Mapping[str, Any], given: str) -> list[Message]:
    instruction = _text(row["instruction"], "instruction")
    context = "" if row.get("input") is None else _text(row["input"], "input")
    turns = [Message("user", instruction), Message("assistant", _text(row["output"], "output"))]
    if not context.strip() or given == "ignore":
        return turns
    if given == "alpaca":
        turns.insert(0, Message("system", ALPACA))
    asked = {
        "alpaca": f"{instruction}{INPUT}{context}",
        "append": f"{instruction} {context}",
        "alone": context,
    }
    turns[-2] = Message("user", asked[given])
    return turns


def _turns(messages: Any, key: str) -> list[Message]:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise Unfit(f"{key} that is a {_type(messages)}", 'a list of {"role": ..., "content": ...}')
    return [_turn(message, f"{key}, whose message {i}") for i, message in enumerate(messages, 1)]


def _turn(message: Any, called: str) -> Message:
    if not isinstance(message, Mapping):
        raise Unfit(f"{called} is a {_type(message)}", 'an object {"role": ..., "content": ...}')
    more = [key for key, value in message.items() if key not in ("role", "content") and value is not None]
    if more:
        raise Unfit(f"{called} has {_listed(more)}", "role and content alone")
    role = message.get("role")
    if role not in ROLES:
        raise Unfit(f"{called} has {_role(role)}", f"a role of {', '.join(ROLES)}")
    return Message(role, _text(message.get("content"), f"{called}, content"))


def _refuse_unanswered(turns: Sequence[Message]) -> None:
    """Raises Unfit where there is nothing to answer, or no answer."""
    if not turns:
        raise Unfit("no message", "a conversation")
    if turns[-1].role != "assistant":
        got = f"a conversation that ends with the {turns[-1].role}"
        raise Unfit(got, "the assistant's answer at its end, which is what is learnt")
    if all(turn.role != "user" for turn in turns):
        raise Unfit("a conversation without a user", "what the assistant answers to")
    for number, turn in enumerate(turns, 1):
        if turn.role == "assistant" and not turn.content.strip():
            raise Unfit(f"an empty answer (turn {number})", "answers that say something")


def _text(value: Any, called: str) -> str:
    if not isinstance(value, str):
        raise Unfit(f"{called} that is a {_type(value)}", "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unfit(f"{called} with half a character", "whole characters") from None
    return value


def _keys(row: Mapping[str, Any]) -> str:
    if not row:
        return "an object without keys"
    without = [key for key, value in row.items() if value is None]
    return f"keys {_listed(list(row))}" + (f" ({_listed(without)} null)" if without else "")


def _listed(keys: Sequence[str]) -> str:
    shown = [f"'{shortened(printable(key), 40)}'" for key in keys[:MOST_KEYS]]
    return ", ".join([*shown, *(["..."] if len(keys) > MOST_KEYS else [])])


def _role(role: Any) -> str:
    """A role as it may be shown: a text may be anybody's words."""
    if not isinstance(role, str):
        return "no role" if role is None else f"a role that is a {_type(role)}"
    return f"role '{role}'" if role.isidentifier() and len(role) <= 20 else "a role of other words"


def _type(value: Any) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
