"""Which tokens of a conversation the assistant has said, by marks or by verified prefixes."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray import shipped
from fedray.learners.chat_template import ChatTemplate, cut_conversations
from fedray.scenario.base import Refused
from tests.learners.tiny_language import CHATML, PLAIN, tokenizer

ALPACA = (shipped.HERE / "alpaca.jinja").read_text()
UNMARKED = ALPACA.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
WITHOUT_ROLES = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
LAST_ALONE = (  # as Qwen3 writes thoughts, of the last answer alone
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '<think></think>' if m.role == 'assistant' and loop.last }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATES = "{% if messages[0].role != 'user' %}{{ raise_exception('The user begins') }}{% endif %}" + PLAIN
TALK = (("user", "say red"), ("assistant", "red, red"), ("user", "and blue"), ("assistant", "blue"))


def template(text: str) -> ChatTemplate:
    own = copy.deepcopy(tokenizer())
    own.chat_template = text
    return ChatTemplate(own, "tiny")


def said(one: ChatTemplate, turns) -> str:
    """What is judged, as text."""
    encoded = one.encode(turns)
    return one.tokenizer.decode([i for i, judged in zip(*encoded, strict=True) if judged])


@pytest.mark.parametrize("text", [CHATML, ALPACA], ids=["chatml", "alpaca"])
def test_marked_answers_are_judged_with_what_ends_them(text):
    one = template(text)
    one.verify()
    assert said(one, TALK) == "red, red<|im_end|>blue<|im_end|>"


words = st.text(st.sampled_from("ab .\n<|é中"), max_size=12)
turns = st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(turns)
def test_prefixes_judge_the_same_tokens_as_marks_but_for_what_follows_an_answers_end(pairs):
    talk = [turn for asked, answer in pairs for turn in (("user", asked), ("assistant", answer))]
    marked = template(CHATML).encode(talk)
    plain = template(PLAIN).encode(talk)
    assert plain.ids == marked.ids
    behind = {i for i, judged in enumerate(marked.judged) if not judged and i and marked.judged[i - 1]}
    assert [judged and i not in behind for i, judged in enumerate(plain.judged)] == marked.judged


def test_the_alpaca_template_without_its_marks_judges_the_same():
    assert said(template(UNMARKED), TALK) == said(template(ALPACA), TALK)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (WITHOUT_ROLES, "a template without roles"),
        ("Hello!{% if add_generation_prompt %}{% endif %}", "leaves out what turn 2 says"),
        (
            PLAIN.replace("assistant\n{% endif", "model\n{% endif"),
            "turn 2 changes what was written before it",
        ),
        (CHATML.replace('message.content + "<|im_end|>" -}}{%- endgen', '"" -}}{%- endgen'), "marks nothing"),
        ("{{ nothing.at.all }}", "which the chat template does not take"),
        ("{% for %}", "which the chat template does not take"),
    ],
    ids=["no roles", "no content", "other prompt", "nothing marked", "undefined", "no template"],
)
def test_a_template_that_does_not_say_who_speaks_is_refused_by_name(text, got):
    with pytest.raises(Refused, match=rf"model\.chat_template: got .*{got}.*\('tiny'\), expected a template"):
        template(text).verify()


def test_conversations_that_a_template_does_not_take_are_named():
    one = template(ALTERNATES)
    one.verify()
    with pytest.raises(ValueError, match=r"turns by system, user, assistant.*\(The user begins\)"):
        one.encode((("system", "be kind"), *TALK[:2]))
    with pytest.raises(ValueError, match="begins with the assistant"):
        template(PLAIN).encode((("assistant", "hello"),))
    last = template(LAST_ALONE)
    last.verify()
    assert "<think></think>red, red" in said(last, TALK[:2])
    with pytest.raises(Refused, match=r"data: got sample 1: a template in which turn 2 changes .* expected"):
        cut_conversations(last, [TALK[:2], TALK], 100)


def test_an_answers_end_is_one_token_or_a_text():
    assert template(CHATML).end_ids == [2]
    assert template(CHATML).end_text is None
    spelled = template(PLAIN.replace("<|im_end|>", "</s>"))
    assert spelled.end_text == "</s>"
    assert spelled.end_ids == [2]  # the tokenizer's own


def test_samples_that_are_cut_are_counted():
    one = template(CHATML)
    n = len(one.encode(TALK).ids)
    assert cut_conversations(one, [TALK, TALK[:2]], n) is None
    assert cut_conversations(one, [TALK, TALK[:2]], n - 1).startswith("1 of 2 conversations have more than")
    assert "1 of them lose all" not in cut_conversations(one, [TALK, TALK[:2]], n - 1)
