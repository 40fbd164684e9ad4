import pickle
import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from regionclip_cli.conversion.weights_file import read_weights
from regionclip_cli.errors import MissingError, UsageError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(found):
    return set(found) == set(WEIGHTS) and all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "iteration": 3, "optimizer": {"lr": 0.1, "state": {0: {"momentum": torch.ones(2)}}}},
        {"epoch": 1, "name": "x", "state_dict": {f"module.{key}": value for key, value in WEIGHTS.items()}},
    ],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_wrappers_come_off(tmp_path, content, new_format):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    assert same(read_weights(tmp_path / "w.pth"))


def test_safetensors_and_bare_tensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"))
    torch.save(torch.ones(3, 4), tmp_path / "emb.pth")
    assert read_weights(tmp_path / "emb.pth").shape == (3, 4)


class Payload:
    def __reduce__(self):
        return (open, ("ran.txt", "w"))


def test_code_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": Payload()}}, "evil.pth")
    with pytest.raises(UsageError, match="execute code"):
        read_weights(tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Payload()}))
    with pytest.raises(UsageError, match="pickle"):
        read_weights(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran.txt").exists()


def test_detectron2_pickles_are_refused(tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": {"w": np.ones(2)}}, protocol=2))
    with pytest.raises(UsageError, match="detectron2"):
        read_weights(tmp_path / "R-50.pkl")


def test_torchscript_is_refused_with_another_way(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "RN50.pt")
    with pytest.raises(UsageError, match="models get clip-rn50"):
        read_weights(tmp_path / "RN50.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "list"),
        ({}, "no tensors"),
        ({"model": {"lr": 1.0}}, "no tensors"),
        ({"a": torch.ones(1), "lr": 1.0}, "mixes tensors"),
    ],
)
def test_other_content_is_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=sentence):
        read_weights(tmp_path / "w.pth")


def test_missing_empty_and_folders(tmp_path):
    with pytest.raises(MissingError, match="does not exist"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(UsageError, match="not a file"):
        read_weights(tmp_path)
    (tmp_path / "w.pth").touch()
    with pytest.raises(UsageError, match="empty"):
        read_weights(tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"no" * 40)
    with pytest.raises(UsageError, match="safetensors"):
        read_weights(tmp_path / "w.safetensors")


def whole(folder, suffix):
    path = folder / f"whole{suffix}"
    if not path.exists():
        if suffix == ".safetensors":
            save_file(WEIGHTS, path)
        else:
            torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=suffix == ".pth")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0.01, 0.95))
def test_a_cut_file_is_one_sentence(tmp_path, suffix, cut):
    content = whole(tmp_path, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: max(1, int(cut * len(content)))])
    with pytest.raises(UsageError):
        read_weights(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=300))
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_noise_is_one_sentence(tmp_path, suffix, noise):
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(noise)
    with pytest.raises(UsageError):
        read_weights(path)


def test_damaged_bytes_never_escape_as_a_bug(tmp_path):
    """Whatever one flipped byte does, it is a sentence or weights (a flip inside a number is still a number)."""
    for suffix in (".pth", ".bin", ".safetensors"):
        content = whole(tmp_path, suffix)
        refused = 0
        for at in range(0, len(content), max(1, len(content) // 150)):
            path = tmp_path / f"flip{suffix}"
            path.write_bytes(content[:at] + struct.pack("B", content[at] ^ 0xFF) + content[at + 1 :])
            try:
                read_weights(path)
            except UsageError:
                refused += 1
        assert refused > 0
