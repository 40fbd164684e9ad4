from pathlib import Path

import pytest
import torch

from regionclip_cli.conversion.concept_embeddings import convert_concepts
from regionclip_cli.errors import UsageError

FILE = Path("emb.pth")
NAMES = ["cat", "kettle", "spoon"]


def test_a_bare_tensor_becomes_a_bank():
    content = torch.rand(3, 8)
    bank = convert_concepts(content.half(), FILE, NAMES, "m", 8)
    assert bank.names == tuple(NAMES)
    assert (bank.model, bank.templates) == ("m", "clip-81")
    assert bank.embeddings.dtype == torch.float32
    assert torch.allclose(bank.embeddings, content, atol=1e-3)


def test_a_single_concept_has_lost_its_first_dimension():
    assert convert_concepts(torch.ones(8), FILE, ["cat"], "m", 8).embeddings.shape == (1, 8)


@pytest.mark.parametrize(
    ("content", "names", "dim", "sentence"),
    [
        (torch.ones(65, 8), NAMES, 8, "65.*--names.* 3 "),
        (torch.ones(3, 8), NAMES, 16, "dimension 8.*16"),
        (torch.ones(3, 8, 1), NAMES, 8, r"not embeddings \(C, D\)"),
        (torch.ones(3, 8, dtype=torch.int64), NAMES, 8, r"not embeddings \(C, D\)"),
        (torch.full((3, 8), torch.nan), NAMES, 8, "not finite"),
        (torch.ones(3, 8), ["a", "a", "b"], 8, "twice"),
    ],
)
def test_what_does_not_match_is_refused(content, names, dim, sentence):
    with pytest.raises(UsageError, match=sentence):
        convert_concepts(content, FILE, names, "m", dim)
