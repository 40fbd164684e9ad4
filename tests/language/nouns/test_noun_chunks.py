"""Which nouns a caption has: golden sentences of our own, and the rules behind them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.language.nouns import NounParser, is_concept, make_parser
from regionclip_cli.language.nouns.chunks import nouns, split
from regionclip_cli.language.nouns.lemmas import IRREGULAR, SAME, singular

GOLDEN = [
    ("Two red buses wait behind a taxi near the bus stop.", ["bus", "taxi", "bus stop"]),
    ("A set of knives and forks lies on the kitchen table.", ["set", "knife", "fork", "kitchen table"]),
    ("Some people on skis slide down a snowy hill.", ["people", "ski", "hill"]),
    ("The tennis player swings her tennis racket at a ball.", ["tennis player", "tennis racket", "ball"]),
    ("A child eats a hot dog with mustard in the park.", ["child", "dog", "mustard", "park"]),
    ("He is giving it to them.", []),
    ("Three women and four men are sitting in a living room.", ["woman", "man", "living room"]),
    ("A fire hydrant on the corner of the street.", ["fire hydrant", "corner", "street"]),
    ("The man's T-shirt has a picture of two wolves on it.", ["t shirt", "picture", "wolf"]),
    (
        "A plate of cookies, cherries and strawberries beside glasses of milk.",
        ["plate", "cookie", "cherry", "strawberry", "glass", "milk"],
    ),
    ("A cat that lies on top of a laptop computer keyboard.", ["cat", "top", "laptop computer keyboard"]),
    ("Geese and sheep stand on a snow-covered field.", ["goose", "sheep", "field"]),
    ("A pair of scissors and some scarves on wooden shelves.", ["pair", "scissors", "scarf", "shelf"]),
    ("Zebras, giraffes and horses drink from the river.", ["zebra", "giraffe", "horse", "river"]),
    ("A traffic light hangs over a street full of cars.", ["traffic light", "street", "car"]),
    ("Children are playing baseball with a baseball bat.", ["child", "baseball", "baseball bat"]),
    ("A woman in a bathing suit walks along the beach.", ["woman", "bathing suit", "beach"]),
    ("A stuffed teddy bear sits between two wine glasses.", ["teddy bear", "wine glass"]),
    ("There are lots of dishes in the sink.", ["lot", "dish", "sink"]),
    ("Men on motorcycles ride side by side through the city.", ["man", "motorcycle", "side", "city"]),
    ("A picture hangs upside down on a brick wall.", ["picture", "brick wall"]),
    ("The mice ate the leaves and the tomatoes.", ["mouse", "leaf", "tomato"]),
    (
        "A cutting board with potatoes, knives and loaves of bread.",
        ["cutting board", "potato", "knife", "loaf", "bread"],
    ),
    ("Skateboarders and surfers wear their own shoes.", ["skateboarder", "surfer", "shoe"]),
    ("A man surfing a big wave.", ["man", "wave"]),
    ("A parking lot beside a swimming pool.", ["parking lot", "swimming pool"]),
    ("A black and white photo of a clock tower.", ["photo", "clock tower"]),
    ("Her sunglasses and his jeans.", ["sunglasses", "jeans"]),
    ("1930 @ # 's", []),
    ("", []),
]


@pytest.fixture(scope="module")
def hanta() -> NounParser:
    return make_parser("hanta")


@pytest.mark.parametrize(("caption", "expected"), GOLDEN, ids=[caption for caption, _ in GOLDEN])
def test_golden_captions(hanta: NounParser, caption: str, expected: list[str]) -> None:
    assert hanta.nouns([caption]) == [expected]
    assert hanta.nouns([caption.upper()]) == [expected]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_nouns_or_none(caption: str) -> None:
    words = split(caption)
    assert all(word == word.lower() or not word.isascii() for word in words)
    for name in make_parser_once().nouns([caption])[0]:
        assert name
        assert name == " ".join(name.split())


def make_parser_once(made: list[NounParser] = []) -> NounParser:  # noqa: B006 - one for all examples
    if not made:
        made.append(make_parser("hanta"))
    return made[0]


def test_a_word_without_end_costs_no_time(hanta: NounParser) -> None:
    assert hanta.nouns([f"a {'x' * 100_000} and a dog"]) == [["dog"]]


@pytest.mark.parametrize(
    ("plural", "single"),
    [
        *[("buses", "bus"), ("knives", "knife"), ("skis", "ski"), ("people", "people"), ("leaves", "leaf")],
        *[("gloves", "glove"), ("horses", "horse"), ("vases", "vase"), ("glasses", "glass"), ("boxes", "box")],
        *[("churches", "church"), ("dishes", "dish"), ("movies", "movie"), ("puppies", "puppy"), ("ties", "tie")],
        *[("keys", "key"), ("shoes", "shoe"), ("heroes", "hero"), ("photos", "photo"), ("zoos", "zoo")],
        *[("firemen", "fireman"), ("policewomen", "policewoman"), ("grandchildren", "grandchild"), ("axes", "axe")],
        *[
            ("giraffes", "giraffe"),
            ("wolves", "wolf"),
            ("sleeves", "sleeve"),
            ("quizzes", "quiz"),
            ("dresses", "dress"),
        ],
        *[("tennis", "tennis"), ("bus", "bus"), ("grass", "grass"), ("scissors", "scissors"), ("ramen", "ramen")],
        *[("cactus", "cactus"), ("gas", "gas"), ("yes", "yes"), ("sandwiches", "sandwich"), ("specimen", "specimen")],
    ],
)
def test_singulars(plural: str, single: str) -> None:
    assert singular(plural) == single


def test_no_word_is_in_two_lists() -> None:
    assert {word for word in SAME if IRREGULAR.get(word, word) != word} == set()


def test_a_run_of_nouns_is_a_compound_and_its_head() -> None:
    words = ["a", "coffee", "table", "of", "old", "wood", "-", "boards"]
    tags = ["AT0", "NN1", "NN1", "PRF", "AJ0", "NN1", "PUN", "NN2"]
    assert list(nouns(words, tags)) == ["coffee table", "wood board"]


def test_what_is_no_concept() -> None:
    kept = [word for word in ("they", "#", "'s", "-", "1930", "42", "dog", "u2", "m") if is_concept(word)]
    assert kept == ["dog", "u2"]


class Word(SimpleNamespace):
    """A token as spaCy's."""


def fake_spacy(monkeypatch: pytest.MonkeyPatch, chunks: list[Any], model: bool = True) -> None:
    """Install a stand-in for spaCy whose every document has these chunks."""

    def load(name: str, exclude: list[str]) -> Any:
        if not model:
            raise OSError(f"no model {name}")
        return SimpleNamespace(pipe=lambda texts, batch_size: [SimpleNamespace(noun_chunks=chunks) for _ in texts])

    module = ModuleType("spacy")
    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", module)


def test_spacy_follows_the_papers_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    tennis, old = Word(lemma_="tennis", dep_="compound"), Word(lemma_="old", dep_="amod")
    roots = [
        Word(lemma_="racket", pos_="NOUN", children=[old, tennis]),
        Word(lemma_="they", pos_="PRON", children=[]),
        Word(lemma_="-PRON-", pos_="NOUN", children=[]),
        Word(lemma_="person", pos_="NOUN", children=[]),
    ]
    fake_spacy(monkeypatch, [Word(root=root) for root in roots])
    assert make_parser("spacy").nouns(["x", "y"]) == [["tennis racket", "person"]] * 2


def test_spacy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingError, match=r'pip install "regionclip-cli\[spacy\]"') as caught:
        make_parser("spacy")
    assert caught.value.code == 5
    fake_spacy(monkeypatch, [], model=False)
    with pytest.raises(MissingError, match=r"python -m spacy download en_core_web_sm"):
        make_parser("spacy")
    with pytest.raises(UsageError, match=r"no parser 'spcay'\. Did you mean 'spacy'"):
        make_parser("spcay")
