"""Which label a caption names."""

import pytest

from fedray.data.captions import label_in

NAMES = ("boot", "ankle boot", "shirt", "t-shirt")


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("a photo of an ankle boot", 1),
        ("a Boot", 0),
        ("a T-SHIRT, worn", 3),
        ("shirts", None),
        ("", None),
        ("a shirt beside a boot", 2),
    ],
)
def test_a_caption_names_the_longest_label_that_stands_in_it_as_words(caption, label):
    assert label_in(caption, NAMES) == label
