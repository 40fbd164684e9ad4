"""Parts of a set, and names of classes across files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotation_toys import CONTENT, content, open_content, random_content
from hypothesis import given
from hypothesis import strategies as st

from regionclip_cli.data.detection_sets.class_names import lvis_words, match_classes
from regionclip_cli.data.detection_sets.detection_set import Lists
from regionclip_cli.errors import UsageError


def test_a_subset_has_labels_of_its_own(tmp_path: Path) -> None:
    found = open_content(tmp_path / "boxes.json", CONTENT)
    kept = found.subset(["dog", "cat"])
    assert kept.classes == ("dog", "Cat")
    assert kept.category_ids == (9, 2)
    assert [image.labels.tolist() for image in kept] == [[1], [1]]
    assert kept[0].boxes.tolist() == [[50, 10, 70, 30]]
    assert kept[1].crowd.tolist() == [True]
    assert kept.box_counts().tolist() == [0, 2]
    assert kept.fingerprint != found.fingerprint
    assert found.subset(found.classes).fingerprint == found.fingerprint


def test_images_without_boxes_stay_unless_they_are_dropped(tmp_path: Path) -> None:
    found = open_content(tmp_path / "boxes.json", CONTENT)
    assert [len(image) for image in found.subset(["tea kettle"])] == [1, 0]
    dropped = found.subset(["tea kettle"], drop_empty=True)
    assert [image.id for image in dropped] == [7]
    assert dropped.places_by_id == {7: 0}


def test_subsets_of_subsets(tmp_path: Path) -> None:
    found = open_content(tmp_path / "boxes.json", random_content(3))
    once = found.subset(["class 4", "class 1", "class 2"], drop_empty=True).subset(["class 2"], drop_empty=True)
    direct = found.subset(["class 2"], drop_empty=True)
    assert once.fingerprint == direct.fingerprint
    chosen = direct.at(np.array([2, 0]))
    assert [image.id for image in chosen] == [direct[2].id, direct[0].id]
    assert np.array_equal(chosen[0].boxes, direct[2].boxes)


@pytest.mark.parametrize(
    ("names", "words", "hint"),
    [
        (["kat"], "has no class 'kat'", "Did you mean 'Cat'"),
        (["Tea  Ketle"], "has no class 'Tea  Ketle'", "Did you mean 'tea kettle'"),
        (["zebra"], "has no class 'zebra'", "3 classes are: Cat, tea kettle, dog"),
        (["cat", "CAT"], "is wanted twice", ""),
        ([], "No class", ""),
    ],
)
def test_names_that_do_not_fit_are_told(tmp_path: Path, names: list[str], words: str, hint: str) -> None:
    found = open_content(tmp_path / "boxes.json", CONTENT)
    with pytest.raises(UsageError) as caught:
        found.subset(names)
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_exact_names_go_before_loose_ones() -> None:
    assert match_classes(["US", "us"], ["us", "US"], "it") == (1, 0)
    assert match_classes(["Tea_Kettle"], ["cat", "tea kettle"], "it") == (1,)


def test_lvis_names_outside_lvis_keep_what_tells_them_apart() -> None:
    names = ["toy_(old)", "toy_(new)", "magic_lamp_(old)", "bow_(weapon)", "bus_(vehicle)"]
    assert lvis_words(names) == ("toy (old)", "toy (new)", "magic lamp", "bow (weapon)", "bus")


def test_the_fingerprint_sees_every_number(tmp_path: Path) -> None:
    first = open_content(tmp_path / "boxes.json", CONTENT).fingerprint
    for part, key, value in (
        ("annotations", "bbox", [10, 20, 30, 41]),
        ("annotations", "area", 5),
        ("images", "id", 8),
    ):
        changed = content()
        changed[part][0][key] = value
        if key == "id":
            changed["annotations"][0]["image_id"] = changed["annotations"][2]["image_id"] = value
        assert open_content(tmp_path / "boxes.json", changed).fingerprint != first


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9))))
def test_lists_in_two_arrays_are_lists(pairs: list[tuple[int, int]]) -> None:
    owners, values = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    lists = Lists.of(owners, values, 5)
    assert [lists[own].tolist() for own in range(5)] == [[v for o, v in pairs if o == own] for own in range(5)]
    assert lists.owners().tolist() == sorted(owners.tolist())
