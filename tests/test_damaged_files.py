"""Damaged files end in one error that names the file, whatever the parser below raises."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import write_toy_model

from regionclip_cli.data.boxes import BoxFile, read_boxes
from regionclip_cli.data.region_labels.format import parse_row, read_manifest
from regionclip_cli.data.region_labels.store import _load
from regionclip_cli.errors import RegionClipError, UsageError
from regionclip_cli.evaluation.load_predictions import LoadedPredictions
from regionclip_cli.files import parsing
from regionclip_cli.hub.model_card import METADATA_KEY, read_card, read_metadata
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.language.concept_bank import ConceptBank
from regionclip_cli.training.checkpoint import _read as read_checkpoint
from regionclip_cli.vision.model_io import load_detector

DEEP = "[" * 20_000 + "]" * 20_000


def write_safetensors(path: Path, metadata: object, dtype: str = "F32") -> Path:
    """Write a safetensors file with one (1, 2) tensor and any metadata, without checking them."""
    header = {"__metadata__": metadata, "embeddings": {"dtype": dtype, "shape": [1, 2], "data_offsets": [0, 8]}}
    body = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + np.ones(2, np.float32).tobytes())
    return path


@pytest.mark.parametrize(
    "raised",
    [
        RecursionError(),
        OverflowError("too large"),
        MemoryError(),
        TypeError("a\nb"),
        struct.error("short"),
        KeyError("x"),
    ],
)
def test_whatever_a_parser_raises_is_one_error(raised: Exception) -> None:
    with pytest.raises(UsageError, match=r"^a\.json is damaged: "), parsing("a.json is damaged"):
        raise raised


@pytest.mark.parametrize("passed", [UsageError("ours"), FileNotFoundError("a")])
def test_our_own_errors_and_missing_files_pass(passed: Exception) -> None:
    with pytest.raises(type(passed)) as caught, parsing("a.json is damaged"):
        raise passed
    assert caught.value is passed


@pytest.mark.parametrize(
    ("metadata", "dtype"),
    [
        ({"names": '["cat"]'}, "X"),
        (7, "F32"),
        ({"names": 7}, "F32"),
        ({"names": DEEP}, "F32"),
        ({"names": '["cat"]', "format": 3}, "F32"),
    ],
)
def test_damaged_banks_are_named(tmp_path: Path, metadata: object, dtype: str) -> None:
    path = write_safetensors(tmp_path / "bank.safetensors", metadata, dtype)
    with pytest.raises(UsageError, match="bank"):
        ConceptBank.load(path)


@pytest.mark.parametrize("card", ["7", DEEP, "[]", '{"format": []}', "9" * 5000])
def test_damaged_cards_are_named(tmp_path: Path, card: str) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {METADATA_KEY: card})
    assert read_metadata(path)
    with pytest.raises(UsageError, match="model"):
        read_card(path)


ROW = {"key": "a", "size": [4, 4], "boxes": [[0, 0, 2, 2]], "objectness": None, "concepts": [[1]], "probs": [[0.5]]}


@pytest.mark.parametrize(
    "change",
    [
        {"size": [float("inf"), 4]},
        {"size": None},
        {"concepts": [[9999]]},
        {"concepts": [[-1]]},
        {"concepts": [[10**30]]},
        {"boxes": [[0, 0, 2]]},
        {"probs": "x"},
    ],
)
def test_damaged_label_rows_are_named(change: dict[str, object]) -> None:
    assert parse_row(json.dumps(ROW).encode(), "labels:1", 1, 3).label is not None
    with pytest.raises(UsageError, match="labels:1"):
        parse_row(json.dumps(ROW | change).encode(), "labels:1", 1, 3)


@pytest.mark.parametrize("content", ["7", DEEP, "[]", "{}", '{"format": 1, "names": 7}', '{"format": "x"}'])
def test_damaged_manifests_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(UsageError, match=r"labels\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr': [('hash', (" + b" " * 90, b"\x93NUMPY"])
def test_a_damaged_index_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels-00000.index.npy").write_bytes(content)
    assert _load(tmp_path / "labels-00000.index.npy") is None


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "step-0000002.pth"
    torch.save({"format": 1}, path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(RegionClipError, match="step-0000002"):
            read_checkpoint(path)


def test_box_files_of_windows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"photos\\s.jpg": [[0, 0, 2, 2]]}).encode())
    file: BoxFile = read_boxes(path)
    assert len(file.find("photos/s.jpg").boxes) == 1
    assert file.unused() == []


def test_blank_lines_of_predictions_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"image": "a", "detections": []}\n\n  \n')
    loaded = object.__new__(LoadedPredictions)
    loaded.path = path
    assert loaded._is_lines()
    assert [number for number, _ in loaded._records()] == [1]


@pytest.mark.parametrize("sizes", [[{}], "x", 7, [[]]])
def test_a_card_whose_proposal_network_cannot_be_built_is_named(tmp_path: Path, sizes: object) -> None:
    path = write_toy_model(tmp_path / "toy.safetensors")
    card = read_card(path)
    proposals = {"type": "rpn-trunk", "channels": 4, "sizes": sizes}
    damaged = tmp_path / "damaged.safetensors"
    write_model(damaged, card.model_copy(update={"proposals": proposals}), load_file(path))
    with pytest.raises(UsageError, match="damaged"):
        load_detector(damaged)
