from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.errors import UsageError
from regionclip_cli.language.class_names import Vocabulary, parse_classes

WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12).filter(lambda word: word == word.strip())


def labels(text: str, distractors: str = "") -> tuple[str, ...]:
    return parse_classes(text, distractors).labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", ("cat",)),
        ("cat,kettle", ("cat", "kettle")),
        (" cat ,  coffee   cup ,, ", ("cat", "coffee cup")),
        ("cat\nkettle\r\ncup", ("cat", "kettle", "cup")),
        ('"salt, pepper",cup', ("salt, pepper", "cup")),
        ('6" pipe, 7" rod', ('6" pipe', '7" rod')),
        ("“wine glass”,'cup'", ("wine glass", "cup")),
        ("\ufeffcat,chat\u00a0noir", ("cat", "chat noir")),
        ("cafe\u0301,CAFÉ", ("café",)),
        ("猫,🐱,кот", ("猫", "🐱", "кот")),
        ("TV/monitor,C#,R&B", ("TV/monitor", "C#", "R&B")),
        ("cat,kettle,Cat,cat", ("cat", "kettle")),
    ],
)
def test_a_string_of_names(text: str, expected: tuple[str, ...]) -> None:
    found = parse_classes(text)
    assert found == Vocabulary(expected, tuple((label,) for label in expected))
    assert len(found) == len(expected)


def test_synonyms() -> None:
    found = parse_classes('referee = striped shirt | black and white stripes|Striped Shirt|,ball="salt, pepper"|')
    assert found.labels == ("referee", "ball")
    assert found.phrases == (("striped shirt", "black and white stripes"), ("salt, pepper",))


def test_only_the_first_equals_sign_divides() -> None:
    assert parse_classes("sum=1+1=2").phrases == (("1+1=2",),)


def test_a_sequence_keeps_commas() -> None:
    found = parse_classes(["salt, pepper", "cat=feline|kitten", "@coco-novel"])
    assert found.labels[:3] == ("salt, pepper", "cat", "airplane")
    assert found.phrases[1] == ("feline", "kitten")
    assert len(found) == 1 + 17


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No class is given"),
        (" , ,\n", "No class is given"),
        ("=cat", "lacks a name"),
        ("cat=", "lacks a name or a phrase"),
        ("cat=|", "lacks a name or a phrase"),
        ("cat|kitten", "name=phrase"),
        ("@lvsi", "@lvis"),
        ("cat,@", "There is no built-in class list @"),
        ("cat,names.txt", "no class file names.txt"),
        ("./names", "no class file ./names"),
        ("nowhere/names.json", "no folder nowhere"),
        ("./bank.safetensors", "--concepts"),
        ("ca\x07t", "no text"),
        ("ca\udc80t", "no text"),
        ("cat=feline,cat=kitten", "cat=feline|kitten"),
    ],
)
def test_what_is_refused_is_told(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_classes(text)
    assert words in str(caught.value)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="7"):
        parse_classes(["cat", 7])  # type: ignore[list-item]


def test_phrases_that_were_spelt_out_win_over_a_list() -> None:
    before, after = parse_classes("cat=kitten,@coco"), parse_classes("@coco,cat=kitten")
    assert before.labels[0] == "cat"
    assert before.phrases[0] == ("kitten",)
    assert after.phrases[after.labels.index("cat")] == ("kitten",)
    assert after.labels.index("cat") == parse_classes("@coco").labels.index("cat")
    assert len(before) == len(after) == 80


def test_the_same_synonyms_twice_are_no_conflict() -> None:
    assert parse_classes("cat=a|b,cat=B|A").phrases == (("a", "b"),)


def test_distractors_are_phrases() -> None:
    found = parse_classes("cat,kettle", "ball, thermos=thermos flask|vacuum flask,ball")
    assert found.labels == ("cat", "kettle")
    assert found.distractors == ("ball", "thermos flask", "vacuum flask")


@pytest.mark.parametrize(("classes", "against"), [("cat,ball", "Ball"), ("pet=cat|dog", "dog"), ("cat", "cat=feline")])
def test_a_name_is_not_class_and_distractor(classes: str, against: str) -> None:
    with pytest.raises(UsageError, match="distractor"):
        parse_classes(classes, against)


def test_a_list_of_distractors_gives_way_to_the_classes() -> None:
    found = parse_classes("cat,pet=dog|hamster", "@coco")
    assert len(found.distractors) == 78
    assert not {"cat", "dog"} & set(found.distractors)


def test_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(
        "\ufeff# my classes\r\ncat\r\n\r\nsalt, pepper  # one name\r\nC# book\r\n@coco-novel,\r\n"
        "referee=striped shirt|whistle\r\n".encode()
    )
    found = parse_classes(str(path))
    assert found.labels[:4] == ("cat", "salt, pepper", "C# book", "airplane")
    assert found.labels[-1] == "referee"
    assert found.phrases[-1] == ("striped shirt", "whistle")
    assert parse_classes(f"kettle,{path}").labels[:2] == ("kettle", "cat")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_windows_editors(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text("猫\ncafé\n", encoding=encoding)
    assert labels(str(path)) == ("猫", "café")


def test_a_file_of_one_comma_separated_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat,dog,\n")
    assert labels(str(path)) == ("cat", "dog")


def test_a_list_of_nouns_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "nouns.txt"
    path.write_text("man,1203\ntennis racket,877\n")
    assert labels(str(path)) == ("man", "tennis racket")
    path.write_text("man,1203\nsalt, pepper\n")
    assert labels(str(path)) == ("man,1203", "salt, pepper")


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        (["cat", "salt, pepper"], (("cat",), ("salt, pepper",))),
        ({"cat": ["feline", "kitten"], "a=b": "c"}, (("feline", "kitten"), ("c",))),
        ({"cat": []}, (("cat",),)),
    ],
)
def test_a_json_file(tmp_path: Path, content: object, phrases: tuple[tuple[str, ...], ...]) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    found = parse_classes(str(path))
    assert found.phrases == phrases


def test_a_name_twice_in_json_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('{"cat": ["a"], "dog": ["d"], "cat": ["b"]}')
    with pytest.raises(UsageError, match="two lists of phrases"):
        parse_classes(str(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("names.json", b'["cat",', "names.json:1: not valid JSON"),
        ("names.json", b'{"cat": [1]}', "'cat'"),
        ("names.json", b"7", "not a class list"),
        ("names.json", b'["cat", {"a": "b"}]', "not a class list"),
        ("names.txt", b"\xff\x00\x80", "not UTF-8"),
        ("names.txt", b"# nothing\n\n", "No class is given"),
        ("names.csv", b"cat\n", "only .txt and .json"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        parse_classes(str(path))
    assert words in str(caught.value)


def test_a_folder_is_no_class_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parse_classes(str(tmp_path))


def test_near_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(UsageError, match=r"classes\.txt"):
        parse_classes(str(tmp_path / "clases.txt"))


def test_a_word_is_a_name_although_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat").write_text("dog\n")
    monkeypatch.chdir(tmp_path)
    assert labels("cat") == ("cat",)


def test_files_do_not_open_files(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(f"{path}\ncat\n")
    assert labels(str(path)) == (str(path), "cat")


def test_ten_thousand_names_are_read_at_once() -> None:
    started = time.perf_counter()
    found = parse_classes(",".join(f"name {number}" for number in range(10_000)), "@lvis")
    assert len(found) == 10_000
    assert time.perf_counter() - started < 5


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_names_come_back_in_order_and_once(words: list[str]) -> None:
    found = parse_classes([*words, *words])
    folded = [label.casefold() for label in found.labels]
    assert len(set(folded)) == len(folded)
    assert found == parse_classes(",".join(words)) == parse_classes("\r\n".join(words) + ",")
    assert found == parse_classes(list(found.labels))
    assert found.phrases == tuple((label,) for label in found.labels)


@given(st.dictionaries(WORDS, st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=6))
def test_synonyms_come_back(classes: dict[str, list[str]]) -> None:
    text = ",".join(f"{label}={'|'.join(phrases)}" for label, phrases in classes.items())
    try:
        found = parse_classes(text)
    except UsageError:
        assert len({label.casefold() for label in classes}) < len(classes)
        return
    assert all(found.phrases)
    for label, phrases in zip(found.labels, found.phrases, strict=True):
        written = next(own for name, own in classes.items() if parse_classes(name).labels == (label,))
        assert [phrase.casefold() for phrase in phrases] == list(
            dict.fromkeys(parse_classes([phrase]).labels[0].casefold() for phrase in written)
        )


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str, against: str) -> None:
    try:
        found = parse_classes(text, against)
    except UsageError:
        return
    assert len(found) == len(found.phrases) >= 1
    assert all(label.strip() == label != "" for label in found.labels)
    assert all(phrases and all(phrases) for phrases in found.phrases)


def test_reading_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from regionclip_cli.language import class_names, templates; "
        "class_names.parse_classes('@lvis,cat'); templates.templates('few'); "
        "print([m for m in ('torch', 'numpy', 'mmengine') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
