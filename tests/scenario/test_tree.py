from fedray.scenario.tree import copied, mark_of, parse, put

TEXT = """
near: &place
  rate: 5
far: *place
list:
- 1
- {a: 2}
"""


def test_a_copy_has_the_lines_of_its_tree_and_does_not_change_it():
    tree = parse(TEXT, "file")
    copy = copied(tree)
    assert copy == tree
    for key in ("near", "far", "list"):
        assert mark_of(copy, key) == mark_of(tree, key) is not None
    assert [mark_of(copy["list"], i) for i in (0, 1)] == [(5, 2), (6, 2)]
    assert put(copy, "list.1.a", 3, (9, 0)) == put(copy, "near.rate", 6, None) == []
    assert mark_of(copy["list"][1], "a") == (9, 0)
    assert copy["far"]["rate"] == 6  # an alias stays one
    assert tree == parse(TEXT, "file")
    assert mark_of(tree["list"][1], "a") == (6, 3)
