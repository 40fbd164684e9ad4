"""CLIP's tokenizer without torch: the same tokens as open_clip's, by the `tokenizers` library."""

from __future__ import annotations

import functools
import gzip
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regionclip_cli.environment import package_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<start_of_text>", "<end_of_text>"
_MERGES = 49152 - 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tokenize(texts: Sequence[str], context_length: int) -> np.ndarray:
    """Return the tokens (P, L) int64 of P texts: start, words, end, zeros; longer texts are cut before the end."""
    tokens = np.zeros((len(texts), context_length), np.int64)
    for row, found in zip(tokens, _tokenizer().encode_batch([_cleaned(text) for text in texts]), strict=True):
        ids = found.ids[:context_length]
        row[: len(ids)] = ids
        if len(found.ids) > context_length:
            row[-1] = found.ids[-1]
    return tokens


def _cleaned(text: str) -> str:
    """Return a text as CLIP was trained on it: broken Unicode and HTML repaired, one kind of spaces, lower case."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


@functools.cache
def _tokenizer() -> Tokenizer:
    """Build the tokenizer from the vocabulary that open_clip carries."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    with gzip.open(package_folder("open_clip") / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return tokenizer


def _letters() -> list[str]:
    """Return the letter that stands for each byte, in the order of GPT-2's vocabulary: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
