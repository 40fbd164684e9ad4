"""Train the text tower: CLIP's tokenizer and a 4-layer transformer learn the joint space from phrases.

    python train_text.py --space space.npz --out text.pt --minutes 20

Loss: 1 - cosine to the target, plus a contrastive term within the batch, so that near phrases stay apart. Each phrase
is seen bare or in one of a few prompts, which makes the tower indifferent to them. Batches hold phrases of similar
length and are cut to the longest: the attention is causal and the embedding is read at the end token, so the cut
changes nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONFIG = {"context_length": 32, "vocab_size": 49408, "width": 160, "heads": 4, "layers": 4}
PROMPTS = ["{}", "a {}", "a {}", "the {}", "a photo of a {}", "a photo of the {}", "{}.", "one {} in the scene"]


def tower(dim: int = 512) -> nn.Module:
    """Return an open_clip CLIP whose text side has CONFIG (its image side is a placeholder)."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 32}
    model = open_clip.CLIP(embed_dim=dim, vision_cfg=vision, text_cfg=CONFIG)
    del model.visual
    return model


def encode(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return text features (N, D) of tokens (N, L), L at most the context length."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)  # (N, L, width)
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def embed(state: Path, names: list[str], prompt: str = "a {}") -> Tensor:
    """Return unit text embeddings (N, D) of names by a trained tower."""
    model = tower()
    model.load_state_dict(torch.load(state, weights_only=True))
    tokens = open_clip.SimpleTokenizer(context_length=CONFIG["context_length"])([prompt.format(n) for n in names])
    with torch.no_grad():
        return F.normalize(encode(model, tokens), dim=1)


def batches(tokens: Tensor, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return shuffled index batches whose phrases have similar token counts."""
    lengths = tokens.argmax(1).numpy() + rng.random(len(tokens))
    order = np.argsort(lengths)
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(chunks)
    return chunks


def main() -> None:
    """Train for a while, print the agreement on held-out phrases, write the state dict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="go on from this state dict")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--names", type=int, default=4000, help="how many of the first phrases are names")
    parser.add_argument("--often", type=int, default=4, help="how many times an epoch sees the names")
    parser.add_argument("--others", type=float, default=1.0, help="share of the other phrases that an epoch sees")
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    space = np.load(args.space)
    phrases, targets = [str(p) for p in space["phrases"]], torch.from_numpy(space["targets"].astype(np.float32))
    tokenizer = open_clip.SimpleTokenizer(context_length=CONFIG["context_length"])
    prompted = [torch.stack(list(tokenizer([p.format(x) for x in phrases]))) for p in dict.fromkeys(PROMPTS)]
    table = dict(zip(dict.fromkeys(PROMPTS), prompted, strict=True))
    held = np.zeros(len(phrases), bool)
    held[rng.choice(np.arange(args.names, len(phrases)), 1000, replace=False)] = True
    others = np.flatnonzero(~held)[args.names :]
    model = tower(targets.shape[1])
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    if args.start:
        model.load_state_dict(torch.load(args.start, weights_only=True))
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n],
            "weight_decay": 0.02,
        },
        {"params": [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    start, step, epoch = time.time(), 0, 0
    while (spent := (time.time() - start) / 60) < args.minutes:
        tokens = table[PROMPTS[int(rng.integers(len(PROMPTS)))]]
        some = rng.choice(others, int(args.others * len(others)), replace=False)
        seen = np.concatenate([some, *[np.arange(args.names)] * args.often])
        for rows in batches(tokens[seen], args.batch, rng):
            spent = (time.time() - start) / 60
            share = min(1.0, spent / args.minutes)
            for group in optimiser.param_groups:
                group["lr"] = args.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * share))
            index = torch.from_numpy(seen[rows])
            batch = tokens[index]
            batch = batch[:, : int(batch.argmax(1).max()) + 1]
            got = F.normalize(encode(model, batch), dim=1)  # (N, D)
            goal = F.normalize(targets[index], dim=1)
            similar = goal @ goal.T
            logits = (got @ goal.T / 0.05).masked_fill((similar > 0.9) & ~torch.eye(len(goal), dtype=torch.bool), -1e4)
            loss = (1 - (got * goal).sum(1)).mean() + 0.1 * F.cross_entropy(logits, torch.arange(len(goal)))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            if share >= 1:
                break
        epoch += 1
        with torch.inference_mode():
            test = torch.from_numpy(np.flatnonzero(held))
            cosine = F.cosine_similarity(encode(model, table["a {}"][test]), targets[test]).mean()
            names = torch.arange(2000)
            own = F.cosine_similarity(encode(model, table["a {}"][names]), targets[names]).mean()
        agreement = f"cosine held-out {cosine:.3f}, names {own:.3f}"
        print(f"epoch {epoch} step {step} {spent:.1f} min: loss {loss:.4f}, {agreement}", flush=True)
        torch.save(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
