"""Every weight of some parts, or every weight whose name fits a pattern."""

from fnmatch import fnmatchcase

from torch import nn

from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.tuning.tuning import Tuning


class Full(Tuning):
    """Every weight of the named parts, or of those that the learner trains where none are named."""

    def select(self, learner: Learner) -> dict[str, nn.Parameter]:
        chosen: dict[str, nn.Parameter] = {}
        for part in self.section.parts or learner.default_parts:
            if part not in learner.tunable_parts:
                raise Refused("tuning.parts", repr(part), f"some of {', '.join(learner.tunable_parts)}")
            chosen |= {f"{part}.{name}": p for name, p in learner.parts[part].named_parameters()}
        return chosen


class Partial(Tuning):
    """The weights whose names fit one of the patterns."""

    def select(self, learner: Learner) -> dict[str, nn.Parameter]:
        parts = {part: learner.parts[part] for part in learner.tunable_parts}
        named = {f"{part}.{name}": p for part, m in parts.items() for name, p in m.named_parameters()}
        for pattern in self.section.patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                expected = f"a pattern that names weights, such as {next(iter(named))!r}"
                raise Refused("tuning.patterns", repr(pattern), expected)
        patterns = self.section.patterns
        return {name: p for name, p in named.items() if any(fnmatchcase(name, x) for x in patterns)}
