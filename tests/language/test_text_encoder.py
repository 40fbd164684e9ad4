from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from regionclip_cli.errors import MissingError, PluginError, UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.store import resolve
from regionclip_cli.language.templates import fill, templates
from regionclip_cli.language.text_cache import TextCache
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.language.text_tower import TextTower, clip_config

Write = Callable[..., Path]
Config = dict[str, Any]
NAMES = ["cat", "kettle", "tennis racket"]


def whole_clip(path: Path, config: Config) -> open_clip.CLIP:
    """Return open_clip's own model with the weights of the file."""
    from safetensors.torch import load_file

    clip = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).eval()
    clip.load_state_dict({key.removeprefix("clip."): value for key, value in load_file(path).items()})
    return clip


def test_three_names_give_three_rows_in_order(words: Path) -> None:
    encoder = TextEncoder(words)
    rows = encoder.encode(NAMES)
    assert rows.shape == (3, encoder.dim) == (3, 16)
    assert rows.dtype == torch.float32
    assert torch.pdist(rows).min() > 0.1
    for name, row in zip(NAMES, rows, strict=True):
        torch.testing.assert_close(TextEncoder(words, cache=None).encode([name])[0], row)


@pytest.mark.parametrize("name", ["plain", "few", "clip-81"])
def test_the_embedding_is_the_mean_of_what_open_clip_computes(words: Path, config: Config, name: str) -> None:
    clip = whole_clip(words, config)
    with torch.no_grad():
        expected = torch.stack(
            [
                clip.encode_text(open_clip.tokenize([fill(each, phrase) for each in templates(name)])).mean(0)
                for phrase in NAMES
            ]
        )
    torch.testing.assert_close(TextEncoder(words, cache=None).encode(NAMES, name), expected, rtol=1e-4, atol=1e-5)


def test_the_card_chooses_the_templates(words: Path) -> None:
    encoder = TextEncoder(words, cache=None)
    assert torch.equal(encoder.encode(NAMES), encoder.encode(NAMES, "few"))
    assert not torch.allclose(encoder.encode(NAMES), encoder.encode(NAMES, "plain"))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_size_changes_embeddings_by_rounding_alone(words: Path, batch: int) -> None:
    phrases = ["cat", "a much longer phrase about a cat on a mat", "kettle", "x", "tennis racket", "cat"]
    rows = TextEncoder(words, cache=None, batch=batch).encode(phrases)
    expected = TextEncoder(words, cache=None).encode(phrases)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(rows[0], rows[-1])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", ["words", "regionclip-tiny"])
def test_an_embedding_does_not_depend_on_its_neighbours(
    words: Path, model: str, dtype: torch.dtype, threads: int
) -> None:
    path = words if model == "words" else resolve(model)
    phrases = [f"{'a striped ' * (index % 5)}thing {index}" for index in range(70)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = TextEncoder(path, cache=None, dtype=dtype).encode(phrases)
        for seed in range(3):
            chance, encoder = random.Random(seed), TextEncoder(path, dtype=dtype)
            left = chance.sample(range(len(phrases)), len(phrases))
            while left:
                size = chance.choice([1, 2, 7, 20, 64])
                part, left = left[:size], left[size:]
                assert torch.equal(encoder.encode([phrases[index] for index in part]), whole[part])
            assert torch.equal(encoder.encode(phrases), whole)
            TextCache().clear()
    finally:
        torch.set_num_threads(before)


def test_features_of_tokens_do_not_depend_on_the_batch(words: Path) -> None:
    encoder = TextEncoder(words, cache=None)
    tokens = encoder.tokenize([f"a caption of {'many ' * index}words" for index in range(40)])
    whole = encoder.encode_tokens(tokens)
    parts = [encoder.encode_tokens(part) for part in tokens.split([1, 5, 30, 4])]
    assert torch.equal(torch.cat(parts), whole)
    assert encoder.encode_tokens(tokens[:0]).shape == (0, 16)


def test_any_phrase_has_an_embedding(words: Path) -> None:
    phrases = ["🐱", "猫", "café", "!", "{}", "a " * 500 + "cat", "<end_of_text> cat", "A\u200bB", "%s \\ \x07"]
    rows = TextEncoder(words).encode(phrases)
    assert rows.isfinite().all()
    assert torch.pdist(rows).min() > 1e-3


def test_a_text_that_is_too_long_keeps_its_end_token(words: Path) -> None:
    tokens = TextEncoder(words).tokenize(["cat", "cat " * 200])
    assert tokens.shape == (2, 77)
    assert tokens[1, -1] == tokens.max() == 49407
    assert (tokens[1, 1:-1] == tokens[0, 1]).all()


@pytest.mark.parametrize(
    ("phrases", "words_of_error"),
    [
        ([], "no phrases"),
        (["cat", ""], "no words"),
        ([" , +"], "no words"),
        (["cat", 7], "7"),
        ("cat", "list"),
        (["\udc80"], "not valid text"),
    ],
)
def test_what_cannot_be_embedded_is_refused(words: Path, phrases: list[str], words_of_error: str) -> None:
    with pytest.raises(UsageError, match=words_of_error):
        TextEncoder(words).encode(phrases)


def test_capitals_do_not_matter(words: Path) -> None:
    lower, upper = TextEncoder(words).encode(["cat", "CAT"])
    torch.testing.assert_close(lower, upper)


def test_embeddings_can_be_trained_against(words: Path) -> None:
    rows = TextEncoder(words, cache=None).encode(NAMES)
    regions = torch.randn(2, 16, requires_grad=True)
    (regions @ rows.T).sum().backward()
    assert regions.grad is not None


def test_the_weights_are_read_when_a_phrase_is_new(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regionclip_cli.language import text_encoder

    loads = []
    real = text_encoder.load_text_tower
    monkeypatch.setattr(text_encoder, "load_text_tower", lambda *given: loads.append(1) or real(*given))
    rows = TextEncoder(words).encode(NAMES)
    assert len(loads) == 1
    again = TextEncoder(words)
    assert torch.equal(again.encode(NAMES[::-1]), rows.flip(0))
    assert len(loads) == 1
    again.encode([*NAMES, "cup"])
    again.encode(["saucer"])
    assert len(loads) == 2


def test_the_cache_keeps_weights_templates_and_precisions_apart(write_model_of_words: Write) -> None:
    one, other = (write_model_of_words(f"model{seed}", seed=seed, name="same") for seed in (0, 1))
    for path in (one, other):
        for name in ("plain", "few"):
            for dtype in (torch.float32, torch.bfloat16):
                cached, fresh = (
                    TextEncoder(path, dtype=dtype, **cache).encode(NAMES, name)  # type: ignore[arg-type]
                    for cache in ({}, {"cache": None})
                )
                assert torch.equal(cached, fresh)


def test_a_row_of_another_size_in_the_cache_is_computed_again(words: Path, tmp_path: Path) -> None:
    class Odd(TextCache):
        def get(self, encoder: str, phrases: object) -> dict[str, torch.Tensor]:
            return {"cat": torch.zeros(3)}

    assert torch.equal(
        TextEncoder(words, cache=Odd(tmp_path)).encode(NAMES), TextEncoder(words, cache=None).encode(NAMES)
    )


def test_progress_counts_every_distinct_phrase_once(words: Path) -> None:
    phrases = [f"thing {number}" for number in range(150)]
    TextEncoder(words).encode(phrases[:10])
    steps: list[int] = []
    TextEncoder(words).encode([*phrases, *phrases[:3]], progress=steps.append)
    assert steps == [10, 64, 64, 12]


def test_a_run_that_is_stopped_keeps_what_it_has(words: Path) -> None:
    phrases = [f"thing {number}" for number in range(100)]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TextEncoder(words).encode(phrases, progress=stop)
    steps: list[int] = []
    TextEncoder(words).encode(phrases, progress=steps.append)
    assert steps == [64, 36]


def test_bfloat16_is_near(words: Path) -> None:
    full, half = (
        TextEncoder(words, cache=None, dtype=dtype).encode(NAMES) for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(full, half).min() > 0.98


def test_weights_stored_in_half_precision_are_computed_in_full(words: Path, write_model_of_words: Write) -> None:
    from safetensors.torch import load_file, save_file

    from regionclip_cli.hub.model_card import read_card

    half = words.parent / "half.safetensors"
    save_file(
        {key: value.half() for key, value in load_file(words).items()}, half, metadata=read_card(words).metadata()
    )
    rows = TextEncoder(half).encode(NAMES)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, TextEncoder(words).encode(NAMES), rtol=0.02, atol=0.02)


def test_a_model_without_words_says_what_to_do(write_model_of_words: Write) -> None:
    encoder = TextEncoder(write_model_of_words(parts=("visual",)))
    assert encoder.dim == 16
    with pytest.raises(MissingError) as caught:
        encoder.encode(["cat"])
    assert "--concepts" in str(caught.value)
    assert "--text-from" in str(caught.value)


def test_a_text_tower_with_a_gap_is_refused(write_model_of_words: Write) -> None:
    path = write_model_of_words(drop=("ln_final.weight",))
    with pytest.raises(UsageError, match=r"ln_final\.weight"):
        TextEncoder(path).encode(["cat"])


@pytest.mark.parametrize(
    "change",
    [
        {"text_cfg": {"hf_model_name": "roberta-base"}},
        {"text_cfg": {"hf_tokenizer_name": "bert-base"}},
        {"custom_text": True},
        {"text_cfg": {"width": 7, "heads": 2}},
        {"text_cfg": {"breadth": 7}},
    ],
)
def test_other_kinds_of_text_towers_are_refused(config: Config, change: Config) -> None:
    with pytest.raises(UsageError):
        TextTower(config | change, {})


def test_the_config_is_the_cards_or_the_backbones(config: Config) -> None:
    assert clip_config(ModelCard(name="a", clip=config)) == config
    assert clip_config(ModelCard(name="a", backbone="clip-rn50"))["quick_gelu"]
    assert clip_config(ModelCard(name="a", backbone="regionclip-tiny"))["embed_dim"] == 512
    with pytest.raises(UsageError, match="clip-rn50"):
        clip_config(ModelCard(name="a", backbone="clip-rn5"))


def test_a_backbone_with_an_unknown_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from regionclip_cli.hub.backbones import BACKBONES

    monkeypatch.setitem(BACKBONES, "odd", dataclasses.replace(BACKBONES["clip-rn50"], name="odd", open_clip="RN5000"))
    with pytest.raises(PluginError, match="RN5000"):
        clip_config(ModelCard(name="a", backbone="odd"))


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_towers_that_look_at_all_tokens_see_all(config: Config, change: Config) -> None:
    config["text_cfg"] |= change
    torch.manual_seed(0)
    clip = open_clip.CLIP(16, config["vision_cfg"], config["text_cfg"]).eval()
    state = {key: value for key, value in clip.state_dict().items() if not key.startswith(("visual.", "logit_scale"))}
    side = TextTower(config, state)
    tokens = side.tokenize(NAMES)
    with torch.no_grad():
        torch.testing.assert_close(side(tokens), clip.encode_text(tokens))


def test_tokenizer_options_of_the_config_count(config: Config) -> None:
    clip = open_clip.CLIP(16, config["vision_cfg"], config["text_cfg"])
    state = {key: value for key, value in clip.state_dict().items() if not key.startswith(("visual.", "logit_scale"))}
    options = {"text_cfg": config["text_cfg"] | {"tokenizer_kwargs": {"clean": "canonicalize"}}}
    plain, bare = TextTower(config, state), TextTower(config | options, state)
    assert torch.equal(bare.tokenize(["a cat!"]), plain.tokenize(["a cat"]))
    assert not torch.equal(plain.tokenize(["a cat!"]), plain.tokenize(["a cat"]))
