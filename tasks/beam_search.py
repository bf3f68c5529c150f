"""Beam search, of many texts at once: the likeliest that a net can write, as far as one looks."""

from typing import Any

import torch
from torch import Tensor


def beam_search(
    net: Any, source: Tensor, first: int, end: int, beam: int, length_penalty: float, longest: int
) -> list[list[int]]:
    """Return the likeliest texts that were found.

    Texts are compared by their log probability divided by ``((5 + length) / 6) ** length_penalty``
    (https://arxiv.org/abs/1609.08144), else short ones would win.

    Args:
        net: Network with ``start`` and ``go_on``, as ``nets.transformer.Transformer`` has them.
        source: What is read, tokens (B, S).
        first: The token that every text begins with.
        end: The token that every text ends with.
        beam: How many beginnings of a text are gone on with; 1 always takes the likeliest token.
        length_penalty: How much longer texts are preferred; 0 not at all.
        longest: Tokens of the longest text.

    Returns:
        Tokens of every text, without the first and the last.
    """
    B, device = len(source), source.device
    state = picked(net.start(source), torch.arange(B, device=device).repeat_interleave(beam))
    texts = torch.full((B * beam, 1), first, device=device)
    scores = torch.full((B, beam), -torch.inf, device=device)  # log probabilities
    scores[:, 0] = 0.0  # at first all beginnings are the same one
    done = torch.zeros(B, beam, dtype=torch.bool, device=device)
    lengths = torch.zeros(B, beam, device=device)
    for _ in range(longest):
        logits, state = net.go_on(texts[:, -1:], state)
        steps = logits.float().log_softmax(1).view(B, beam, -1)
        steps[
            ..., [token for token in (0, first) if token != end]
        ] = -torch.inf  # padding and the beginning are no text
        ended = torch.full_like(steps, -torch.inf)
        ended[..., end] = 0.0  # what has ended stays as it is
        steps = torch.where(done[..., None], ended, steps)
        lengths = lengths + ~done
        totals = scores[..., None] + steps
        worth = totals / ((5 + lengths[..., None]) / 6) ** length_penalty
        _, best = worth.flatten(1).topk(beam)
        rows, tokens = best // steps.shape[2], best % steps.shape[2]
        scores = totals.flatten(1).gather(1, best)
        done = done.gather(1, rows) | (tokens == end)
        lengths = lengths.gather(1, rows)
        places = (rows + beam * torch.arange(B, device=device)[:, None]).flatten()
        if beam > 1:  # else every text goes on from itself
            state = picked(state, places)
        texts = torch.cat([texts[places], tokens.view(-1, 1)], dim=1)
        if done.all():
            break
    found = texts.view(B, beam, -1)[:, 0, 1:].tolist()  # the best comes first
    return [text[: text.index(end)] if end in text else text for text in found]


def picked(state: Any, rows: Tensor) -> Any:
    """Return a net's state of other rows of the batch."""
    if isinstance(state, Tensor):
        return state[rows]
    if isinstance(state, list | tuple):
        return type(state)(picked(part, rows) for part in state)
    return state  # numbers, which are the same for all
