"""Text features of many contexts × many class names, fast and exact.

One estimated gradient needs N = q + 1 contexts × C classes. Padding each
prompt to the model's full length, as the usual `encode_text` does, spends most
of its operations on padding and on repeating equal prefixes. In a *causal* tower
a token sees only what comes before it, so

- nothing after the end-of-text token needs to be computed;
- `[SOS]` is the same for all prompts and is computed once;
- a class-shared context in front of the class name is the same for all classes
  and is computed once per context, not once per (context, class);
- in the last layer only the end-of-text position is read.

A prompt is therefore a chain of *segments*, each an embedding block of shape
(n, c, length, D) with n in {1, N} and c in {1, C}: a segment is computed once for
all contexts (classes) it does not depend on, and its keys and values broadcast to
the segments that follow. Classes with equally long names are evaluated together,
all lengths behind the same prefix.

Plain torch operations, so it runs on CPU and GPU and under autograd. Towers that
are not causal go through open_clip's own `encode_text` at full length.
"""

from __future__ import annotations

import contextlib
import functools

import lazy_loader
import torch
import torch.nn.functional as F

from cbbt.box.memory import chunk_size
from cbbt.box.prompts import check_position
from cbbt.box.tokens import Tokens

open_clip = lazy_loader.load("open_clip")


class TextTower:
    """The text tower of an open_clip model, fed with context vectors.

    Args:
        model: an `open_clip.CLIP` or `CustomTextCLIP` with a token embedding.
        tokenizer: the model's tokenizer; texts → int64 (n, context_length).
        max_tokens: tokens evaluated at once; bounds the memory without changing
            the result beyond rounding. Follows from the device's memory if None.

    Raises ValueError for a text tower without a token embedding of its own, or
    whose tokenizer has no start-of-text and end-of-text token.
    """

    def __init__(self, model, tokenizer, max_tokens: int | None = None):
        text = getattr(model, "text", model)
        if not hasattr(text, "token_embedding"):
            raise ValueError(f"{type(text).__name__} has no token embedding, so it cannot take a context")
        self.model, self.text = model, text
        self.pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")
        blocks = text.transformer.resblocks
        self.causal = (
            getattr(text, "attn_mask", None) is not None
            and getattr(text, "cls_emb", None) is None
            and self.pool in ("argmax", "eos")
            and all(type(block) is open_clip.transformer.ResidualAttentionBlock for block in blocks)
        )
        self.context_dim = text.token_embedding.weight.shape[1]
        # CoCa's last position belongs to a class token.
        self.length = text.positional_embedding.shape[0] - (getattr(text, "cls_emb", None) is not None)
        self.max_tokens = max_tokens or self._tokens_at_once(blocks)
        self.tokens = Tokens(tokenizer, self.length)
        self.start, self.end, self.stop = self.tokens.start, self.tokens.end, self.tokens.stop

    def _tokens_at_once(self, blocks) -> int:
        # Per token and unit of width: 16 numbers within a block (8 of them in the MLP),
        # and a key and a value in each.
        weight = self.text.token_embedding.weight
        per_token = weight.element_size() * self.context_dim * (16 + 2 * len(blocks))
        # Larger chunks are no faster on a CPU, as they overflow its caches.
        return chunk_size(weight.device, per_token, most=8192 if weight.device.type == "cpu" else None)

    def embed(self, ids) -> torch.Tensor:
        """Token embeddings (len(ids), D), without positions."""
        weight = self.text.token_embedding.weight
        return weight[torch.as_tensor(ids, dtype=torch.int64, device=weight.device)]

    def encode_sentences(self, ids: torch.Tensor) -> torch.Tensor:
        """Unit-norm features (n, E) of plain sentences, ids (n, length), by open_clip's own path."""
        return self.model.encode_text(ids.to(self.text.token_embedding.weight.device), normalize=True)

    def encode(self, contexts: torch.Tensor, class_names, position: str = "end") -> torch.Tensor:
        """Unit-norm features (N, C, E) of every context with every class name.

        `contexts` is (N, M, D), or (N, C, M, D) for class-specific contexts.
        Raises ValueError for a wrong shape, position, or too long a prompt.
        """
        return self.evaluate(*self.read(contexts, class_names, position))

    def read(self, contexts: torch.Tensor, class_names, position: str):
        """What `evaluate` takes; every invalid input is refused here, before it is counted."""
        check_position(position)
        contexts = self._check_contexts(contexts, len(class_names))
        return contexts, self.tokens.names(class_names, contexts.shape[2], position), position

    def evaluate(self, contexts: torch.Tensor, names: list[list[int]], position: str) -> torch.Tensor:
        """The features that `encode` returns."""
        by_length: dict[int, list[int]] = {}
        for index, ids in enumerate(names):
            by_length.setdefault(len(ids), []).append(index)
        groups = [(group, torch.tensor([names[index] for index in group])) for group in by_length.values()]
        evaluate = self._encode_causal if self.causal else self._encode_full_length
        features = evaluate(contexts, groups, position)
        inverse = torch.tensor([index for group, _ in groups for index in group]).argsort().to(contexts.device)
        return F.normalize(features[:, inverse], dim=-1)

    def _check_contexts(self, contexts: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Contexts as (N, 1 or C, M, D) on the tower's device, or ValueError."""
        if not isinstance(contexts, torch.Tensor):
            raise ValueError(f"contexts must be a tensor (N, M, {self.context_dim}), got {type(contexts).__name__}")
        shared = contexts.ndim == 3
        if shared:
            contexts = contexts[:, None]
        if (
            contexts.ndim != 4
            or not len(contexts)
            or contexts.shape[-1] != self.context_dim
            or contexts.shape[1] not in (1, n_classes)
        ):
            raise ValueError(
                f"contexts must be (N, M, {self.context_dim}) or (N, {n_classes}, M, {self.context_dim}), "
                f"got {tuple(contexts.shape)}"
            )
        weight = self.text.token_embedding.weight
        return contexts.to(device=weight.device, dtype=weight.dtype)

    # ---- causal towers -------------------------------------------------------

    def _encode_causal(self, contexts, groups, position):
        """Features (N, C, E), not normalised, classes in the order of the groups."""
        length, shared = contexts.shape[2], contexts.shape[1] == 1
        half = {"end": length, "middle": length // 2, "front": 0}[position]
        start = self.embed([self.start])[None, None]
        stop = self.embed([*self.tokens.stop_behind(position), self.end])[None, None]
        rows = []
        for block in contexts.split(max(1, self.max_tokens // (1 + length))):
            before, after = block[:, :, :half], block[:, :, half:]
            # Segments without a class name are evaluated once for all classes.
            past = [[] for _ in self.text.transformer.resblocks]
            for segment in _merge([start, before] if shared else [start]):
                past, _ = self._evaluate(past, segment)
            columns = []
            for group, ids in groups:
                # Names after a context depend on it; names in front are the same for all contexts.
                names = self.embed(ids)[None].expand(len(block) if half else 1, -1, -1, -1)
                rest = [names, after, stop] if shared else [before[:, group], names, after[:, group], stop]
                columns.append(self._finish(past, rest, len(block), len(group)))
            rows.append(torch.cat(columns, dim=1))
        return torch.cat(rows)

    def _finish(self, past, segments, n: int, c: int) -> torch.Tensor:
        """Features (n, c, E) of the prompts that continue `past` with `segments`, as many at once as fit into memory."""
        per_prompt = sum(segment.shape[2] for segment in segments)
        class_step = max(1, min(c, self.max_tokens // per_prompt))
        context_step = max(1, self.max_tokens // (per_prompt * class_step))
        rows = []
        for i in range(0, n, context_step):
            kept = [[tuple(_part(t, 1, i, context_step) for t in pair) for pair in layer] for layer in past]
            columns = []
            for j in range(0, c, class_step):
                seen = kept
                *early, last = _merge([_part(_part(s, 0, i, context_step), 1, j, class_step) for s in segments])
                for segment in early:
                    seen, _ = self._evaluate(seen, segment)
                columns.append(self._evaluate(seen, last, read=True)[1])
            rows.append(torch.cat(columns, dim=1))
        return torch.cat(rows)

    def _evaluate(self, past, x, read: bool = False):
        """Run the segment x (n, c, length, D) that follows `past`.

        Returns `past` with its keys and values (a list of pairs per layer) and None, or,
        if `read`, None and the features (n, c, E) at its last token.
        """
        blocks = self.text.transformer.resblocks
        offset = sum(key.shape[-2] for key, _ in past[0])
        x = x + self.text.positional_embedding[offset : offset + x.shape[2]]
        extended = []
        for layer, block in enumerate(blocks):
            query, key, value = _query_key_value(block, x)
            seen = [*past[layer], (key, value)]
            if not read:
                extended.append(seen)
            if layer == len(blocks) - 1:
                if not read:
                    return extended, None  # of the last layer only keys and values are needed
                x, query = x[:, :, -1:], query[:, :, :, -1:]
            x = block.ls_1(block.attn.out_proj(_attend(query, seen))).add_(x)
            x = block.ls_2(_mlp(block, block.ln_2(x))).add_(x)
        x = self.text.ln_final(x[:, :, -1])
        projection = self.text.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
        return None, x

    # ---- any other tower -----------------------------------------------------

    def _encode_full_length(self, contexts, groups, position):
        """The same features through `encode_text`, one padded prompt each."""
        columns = []
        for group, ids in groups:
            their_contexts = contexts if contexts.shape[1] == 1 else contexts[:, group]
            columns.append(self._encode_padded(their_contexts, ids, position))
        return torch.cat(columns, dim=1)

    def _encode_padded(self, contexts, name_ids, position):
        """Features (N, c, E) of names of one length."""
        length = contexts.shape[2]
        half = {"end": length, "middle": length // 2, "front": 0}[position]
        prompts = []
        for ids in name_ids.tolist():
            # Any ordinary token will do as a placeholder for the context vectors.
            tokens = [self.start] + self.stop[:1] * half + ids + self.stop[:1] * (length - half)
            prompts.append(tokens + self.tokens.stop_behind(position) + [self.end])
        device = contexts.device
        padded = torch.full((len(prompts), self.length), getattr(self.text, "pad_id", 0) or 0, device=device)
        padded[:, : len(prompts[0])] = torch.tensor(prompts, device=device)
        places = [1 + i for i in range(half)] + [1 + i + name_ids.shape[1] for i in range(half, length)]
        step = max(1, self.max_tokens // self.length)
        features = []
        for context in contexts:
            context = context.expand(len(prompts), -1, -1)
            parts = []
            for some, their_context in zip(padded.split(step), context.split(step)):
                with _replaced_embeddings(self.text.token_embedding, their_context, places):
                    parts.append(self.model.encode_text(some))
            features.append(torch.cat(parts))
        return torch.stack(features)


@contextlib.contextmanager
def _replaced_embeddings(embedding, context, places):
    """In the block, the tokens at `places` are embedded as the rows of `context`."""

    def replace(module, inputs, output):
        output = output.clone()
        output[:, places] = context.to(output.dtype)
        return output

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _merge(blocks: list[torch.Tensor]) -> list[torch.Tensor]:
    """Join neighbours where the first depends on all that the second depends on.

    A later segment is never cheaper than an earlier one it must attend to, so
    joining [names, stop] saves a pass without computing anything twice.
    """
    first, *others = [block for block in blocks if block.shape[2]]
    merged = [first]
    for block in others:
        n, c = merged[-1].shape[:2]
        if block.shape[0] in (1, n) and block.shape[1] in (1, c):
            block = block.expand(n, c, *block.shape[2:])
            merged[-1] = torch.cat([merged[-1], block], dim=2)
        else:
            shape = (max(n, block.shape[0]), max(c, block.shape[1]))
            merged.append(block.expand(*shape, *block.shape[2:]))
    return merged


def _part(tensor: torch.Tensor, axis: int, start: int, step: int) -> torch.Tensor:
    """Entries start … start + step of an axis, or all of an axis of one, which broadcasts."""
    size = tensor.shape[axis]
    return tensor if size == 1 else tensor.narrow(axis, start, min(step, size - start))


def _query_key_value(block, x):
    """Queries, keys and values, each (heads, n, c, length, head width): the one copy that puts heads first is made here."""
    attention = block.attn
    projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    projected = projected.unflatten(-1, (3, attention.num_heads, attention.head_dim))
    return projected.permute(3, 4, 0, 1, 2, 5).contiguous()


def _attend(query, past):
    """Attention of the newest segment over all segments so far, (n, c, length, D).

    The newest keys belong to the queries' own segment (causal mask); earlier
    ones come before every query.
    """
    heads, n, c, length, width = query.shape
    scores = [(_folded(query, key) @ key.mT).reshape(heads, n, c, length, -1) for key, _ in past]
    # With fewer queries than own keys (last layer), the queries are the last ones.
    own = scores[-1].shape[-1]
    hidden = torch.ones(length, own, dtype=torch.bool, device=query.device).triu(own - length + 1)
    scores[-1].masked_fill_(hidden, float("-inf"))
    sizes = [score.shape[-1] for score in scores]
    weights = torch.cat(scores, dim=-1).mul_(width**-0.5).softmax(dim=-1).split(sizes, dim=-1)
    parts = ((_folded(weight, value) @ value).reshape(query.shape) for weight, (_, value) in zip(weights, past))
    mixed = functools.reduce(torch.Tensor.add_, parts)
    return mixed.permute(1, 2, 3, 0, 4).flatten(-2)


def _folded(rows, key):
    """`rows` (heads, n, c, length, k) as one matrix where they meet the same `key` (heads, n or 1, 1, p, d), not copied then."""
    return rows.reshape(*key.shape[:3], -1, rows.shape[-1]) if key.shape[2] == 1 else rows


def _mlp(block, x):
    """`block.mlp`; QuickGELU(h) is SiLU(1.702 h) / 1.702, whose factors cost nothing within the products."""
    first, activation, second = block.mlp
    if not isinstance(activation, open_clip.transformer.QuickGELU):
        return block.mlp(x)
    hidden = torch.addmm(1.702 * first.bias, x.flatten(0, -2), first.weight.T, alpha=1.702)
    mixed = torch.addmm(second.bias, F.silu(hidden, inplace=True), second.weight.T, alpha=1 / 1.702)
    return mixed.view(x.shape)
