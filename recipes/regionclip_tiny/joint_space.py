"""The joint embedding space (D = 512): CLIP's text vectors where they are known, MiniLM carried over where not.

    python joint_space.py --data DIR --minilm DIR --phrases phrases.txt --out space.npz

For 2,148 class names the real CLIP ViT-B/32 text vectors are at hand. For any other phrase a ridge regression from
MiniLM sentence embeddings predicts one. CLIP says what looks alike, MiniLM knows every word, so a phrase's target is
both: [CLIP part, weight * MiniLM part], each centred and of unit length, reduced to 512 dimensions by PCA over all
phrases. Centring matters: the origin is then "nothing in particular", which is what the zero background embedding
of RegionCLIP stands for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import sources
import torch

DIM = 512


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows of unit length."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8)


def minilm(folder: Path, phrases: list[str], batch: int = 512) -> np.ndarray:
    """Return MiniLM's mean-pooled sentence embeddings (N, 384) of unit length."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
    out = np.zeros((len(phrases), 384), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenizer(
                [phrases[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            mask = tokens["attention_mask"][..., None]  # (N, L, 1)
            hidden = model(**tokens).last_hidden_state  # (N, L, 384)
            out[rows] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return unit(out)


def ridge(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Return W (in, out) that minimises |xW - y|^2 + strength |W|^2."""
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def clip_part(data: Path, phrases: list[str], sentences: np.ndarray, strength: float) -> np.ndarray:
    """Return centred unit CLIP text vectors (N, 512): the real one where known, else predicted from MiniLM's."""
    names, vectors = sources.clip_vectors(data)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    vectors = unit(vectors)
    vectors = unit(vectors - vectors.mean(0))
    known: dict[str, list[np.ndarray]] = {}
    for name, vector in zip(names, vectors, strict=True):
        known.setdefault(name, []).append(vector)
    truth = {name: unit(np.mean(found, 0, keepdims=True))[0] for name, found in known.items() if name in row}
    rows = np.array([row[name] for name in truth])
    y = np.stack(list(truth.values()))
    rng = np.random.default_rng(0)
    test = rng.random(len(rows)) < 0.1
    fitted = unit(sentences[rows[test]] @ ridge(sentences[rows[~test]], y[~test], strength))
    print(f"held-out names: mean cosine of predicted to real CLIP vector {np.sum(fitted * y[test], 1).mean():.3f}")
    predicted = unit(sentences @ ridge(sentences[rows], y, strength))
    predicted[rows] = y
    return predicted


def main() -> None:
    """Write phrases and their targets (N, 512), unit length, fp16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--phrases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minilm-weight", type=float, default=0.6)
    parser.add_argument("--ridge", type=float, default=3.0)
    args = parser.parse_args()
    phrases = args.phrases.read_text().splitlines()
    cached = args.out.with_suffix(".minilm.npy")
    if cached.exists() and len(np.load(cached, mmap_mode="r")) == len(phrases):
        sentences = np.load(cached)
    else:
        sentences = minilm(args.minilm, phrases)
        np.save(cached, sentences)
    sentences = unit(sentences - sentences.mean(0))
    both = np.concatenate([clip_part(args.data, phrases, sentences, args.ridge), args.minilm_weight * sentences], 1)
    both -= both.mean(0)
    _, values, axes = np.linalg.svd(both[:: max(1, len(both) // 40000)], full_matrices=False)
    print(f"PCA to {DIM} keeps {np.sum(values[:DIM] ** 2) / np.sum(values**2):.3f} of the variance")
    targets = unit(both @ axes[:DIM].T)
    np.savez(args.out, phrases=np.array(phrases), targets=targets.astype(np.float16))


if __name__ == "__main__":
    main()
