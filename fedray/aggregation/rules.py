"""The rule that a scenario names."""

from fedray.aggregation.rule import Rule
from fedray.scenario.aggregation_section import AggregationSection
from fedray.scenario.kinds import implementation
from fedray.transport.buffer import Layout


def rule(section: AggregationSection, layout: Layout) -> Rule:
    """The rule of a section, over what travels in a scenario."""
    made: Rule = implementation(section)(section, layout)
    return made
