"""Stages: the pieces that a learner's step is made of, one after another. It can be cut behind each but the
last.

What flows between them goes by name: a stage `needs` some values and `gives` others, so that what crosses a
cut, and what need not, can be read off. The first values are a batch's fields, but for those that are None.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from torch import Tensor, nn

Values = dict[str, Tensor]


class Stage(NamedTuple):
    """A piece of a learner's step.

    Attributes:
        name: what a cut behind it is called.
        needs: names of the values that it takes.
        gives: names of the values that it makes; the last stage gives `loss`.
        run: called with what it needs, in that order; gives a tensor, or several in the order of `gives`.
        modules: whose weights it uses, and no other stage.
        optional: values that it takes behind what it needs, None where a batch lacks one; they are never sent
            across a cut.
        on_air: where the stage is a radio channel: which of what it needs goes on the air, as complex
            symbols, two numbers each. What it gives has arrived: behind it a split takes airtime, and no
            bytes.
    """

    name: str
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    run: Callable[..., Any]
    modules: tuple[nn.Module, ...] = ()
    optional: tuple[str, ...] = ()
    on_air: str | None = None


def inputs(batch: Any) -> Values:
    """A batch's fields, but for those that are None."""
    return {name: value for name, value in vars(batch).items() if value is not None}


def run(stages: Sequence[Stage], values: Mapping[str, Tensor]) -> Values:
    """All that is known once these stages have run; of a whole step, its `loss` too."""
    known: dict[str, Any] = dict(values)
    for stage in stages:
        taken = [known[name] for name in stage.needs]
        taken += [known.get(name) for name in stage.optional]
        given = stage.run(*taken)
        known.update(zip(stage.gives, given if isinstance(given, tuple) else (given,), strict=True))
    return known


def needed(stages: Iterable[Stage]) -> tuple[str, ...]:
    """What these stages take from before them."""
    names: dict[str, None] = {}
    given: set[str] = set()
    for stage in stages:
        names |= dict.fromkeys(name for name in stage.needs if name not in given)
        given.update(stage.gives)
    return tuple(names)


def within(context: Callable[[], AbstractContextManager[None]], stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The same stages, each run in such a context."""

    def wrapped(run: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*values: Tensor | None) -> Any:
            with context():
                return run(*values)

        return inside

    return tuple(stage._replace(run=wrapped(stage.run)) for stage in stages)
