import checkpoint_toys
import pytest


@pytest.fixture(params=["rn50", "rn50x4"])
def official(request):
    """The tensors of a released pre-training checkpoint, and the name of its backbone."""
    return checkpoint_toys.official(request.param), f"clip-{request.param}"


@pytest.fixture
def official_rn50():
    return checkpoint_toys.official("rn50")


@pytest.fixture
def tiny_backbone(monkeypatch):
    """A built-in backbone of a few kilobytes; returns its open_clip state dict."""
    return checkpoint_toys.add_tiny_backbone(monkeypatch)
