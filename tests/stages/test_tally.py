from __future__ import annotations

from results.sample_detections import SAMPLE, detections

from regionclip_cli.stages.detect import MAX_LISTED_DETECTIONS, MAX_LISTED_IMAGES, Tally


def test_few_images_are_listed_one_by_one() -> None:
    tally = Tally()
    for found in SAMPLE:
        tally.add(found)
    columns, rows = tally.table()
    assert columns == ["image", "class", "score", "box (x1 y1 x2 y2)"]
    assert rows == [
        ["a/1.jpg", "coffee cup", "0.90", "10 20 30 60"],
        ["", "cat", "0.25", "0 0 100 80"],
        ["b/1.jpg", "nothing", "", ""],
        ["b/2.png", "cat", "0.50", "1 2 33 40"],
    ]
    assert tally.detections == 3


def test_many_images_are_counted_by_class() -> None:
    tally = Tally()
    for _ in range(MAX_LISTED_IMAGES):
        tally.add(SAMPLE[0])
    tally.add(SAMPLE[2])
    columns, rows = tally.table()
    assert columns[0] == "class"
    assert rows == [
        ["cat", MAX_LISTED_IMAGES + 1, MAX_LISTED_IMAGES + 1, "0.50"],
        ["coffee cup", MAX_LISTED_IMAGES, MAX_LISTED_IMAGES, "0.90"],
    ]
    assert tally.first == []


def test_long_lists_are_cut() -> None:
    tally = Tally()
    tally.add(detections("x", [(0, 0.5, (0, 0, 1, 1))] * (MAX_LISTED_DETECTIONS + 2), (9, 9)))
    rows = tally.table()[1]
    assert len(rows) == MAX_LISTED_DETECTIONS + 1
    assert rows[-1][1] == "and 2 more"
