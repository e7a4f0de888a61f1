"""Client states past a budget are on disk, and come back as they were."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.executors.spill import ClientStates


@given(
    budget=st.integers(0, 600),
    steps=st.lists(
        st.tuples(st.sampled_from(["set", "get", "del"]), st.integers(0, 6), st.integers(0, 40)), max_size=30
    ),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_kept_looked_at_or_forgotten_is_what_a_dict_would_say(budget, steps):
    states, expected = ClientStates(budget), {}
    for what, client, n in steps:
        if what == "set":
            states[client] = expected[client] = {
                "control": np.full(n, client, np.float32),
                "unsent": np.arange(n),
            }
        elif what == "get":
            assert (states.get(client) is None) == (client not in expected)
        elif client in expected:
            del states[client], expected[client]
        assert states.keys() == expected.keys()
        assert (
            sum(a.nbytes for s in states._memory.values() for a in s.values()) <= budget
            or len(states._memory) <= 1
        )
        assert {int(file.name) for file in Path(states._folder.name).iterdir()} == set(states._disk)
    for client, state in expected.items():
        assert all(np.array_equal(states[client][name], array) for name, array in state.items())


def test_what_is_on_disk_goes_with_the_process_that_needed_it():
    states = ClientStates(0)
    states.update({client: {"control": np.ones(4)} for client in range(3)})
    folder = Path(states._folder.name)
    assert len(list(folder.iterdir())) == 2
    del states
    assert not folder.exists()
