"""Classes as people write them."""

import pytest

from jaxsal._commands import classes

LABELS = ("tabby, tabby cat", "tiger cat", "crane", "goldfish, Carassius auratus", "crane", "sea-lion", "tiger")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("3", 3),
        (" 0 ", 0),
        ("tabby", 0),
        ("Tabby  Cat", 0),
        ("tabby, tabby cat", 0),
        ("tabby_cat", 0),
        ("carassius", 3),
        ("sea lion", 5),
        ("tiger", 6),
        ("tiger cat", 1),
    ],
)
def test_found(text, index):
    assert classes.find(text, LABELS, len(LABELS)) == index


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7", r"class 7, expected 0 to 6"),
        ("-1", r"class -1, expected 0 to 6"),
        ("crane", r"2 classes, expected one: 2 \(crane\), 4 \(crane\)"),
        ("cat", r"one: 0 \(tabby\), 1 \(tiger cat\)"),
        ("goldfihs", r"such as: goldfish \(3\)"),
        ("gold", r"unknown class 'gold'"),
        ("1.5", r"unknown class"),
        (" ", r"unknown class"),
    ],
)
def test_refused(text, words):
    with pytest.raises(ValueError, match=words):
        classes.find(text, LABELS, len(LABELS))


def test_without_names_only_numbers():
    assert classes.find("2", None, 3) == 2
    with pytest.raises(ValueError, match="a class number, 0 to 2"):
        classes.find("cat", None, 3)


def test_in_print():
    assert classes.name(3, LABELS) == "goldfish" and classes.name(3, None) == "class 3"
