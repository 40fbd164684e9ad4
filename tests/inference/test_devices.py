from __future__ import annotations

import pytest
import torch

from regionclip_cli.errors import UsageError
from regionclip_cli.inference.device import choose_device, choose_dtype


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps", "gpu", "meta", "cpu:x"])
def test_devices_that_are_not_here_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=name):
        choose_device(name)


def test_number_types() -> None:
    assert choose_dtype() == torch.float32
    assert choose_dtype("bf16") == torch.bfloat16
    with pytest.raises(UsageError, match="fp8"):
        choose_dtype("fp8")
