"""Attention Is All You Need, https://arxiv.org/abs/1706.03762: a transformer that reads one text and writes another.

Differs from the paper: norms come before what they normalize (https://arxiv.org/abs/2002.04745), GELU takes the place
of ReLU, and positions are rotations of queries and keys (https://arxiv.org/abs/2104.09864).
"""

from typing import Any

import torch
from torch import Tensor, nn

from nets.attention import PADDING, CrossAttention, Past, SelfAttention, TransformerBlock, Turns, turns_of


class DecoderBlock(nn.Module):
    """Attention to what is written so far, then to the text that is read, then a feed-forward layer, each added.

    Args:
        dim: Width of a token.
        num_heads: Heads of both attentions.
        dropout: Share of what is added that is set to zero in training.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_reading, self.norm_feed = (nn.LayerNorm(dim) for _ in range(3))
        self.attention = SelfAttention(dim, num_heads, causal=True)
        self.reading = CrossAttention(dim, num_heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Past, mask: Tensor, turns: Turns, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """Map tokens (B, T, dim) to tokens of the same shape.

        Args:
            x: Tokens that are written.
            memory: Keys and values of the text that is read, (B, N, S, dim / N).
            mask: Where there is text to be read, bool (B, S).
            turns: What ``nets.attention.turns_of`` returns for the tokens.
            past: What the call before has returned; None at the start.

        Returns:
            The tokens, and the past of those that follow.
        """
        added, past = self.attention.go_on(self.norm_attention(x), past, turns)
        x = x + self.dropout(added)
        x = x + self.dropout(self.reading(self.norm_reading(x), memory, mask))
        return x + self.dropout(self.feed(self.norm_feed(x))), past

    def memory(self, source: Tensor) -> Past:
        """Return keys and values (B, N, S, dim / N) of the text that is read from, (B, S, dim)."""
        return self.reading.memory(source)


class Transformer(nn.Module):
    """An encoder of the source and a decoder of the target; target tokens are read and told by the same numbers.

    Args:
        source_vocab_size: Number of different tokens of the source; number 0 is padding.
        target_vocab_size: The same of the target.
        dim: Width of a token; divides by ``2 * num_heads``.
        depth: Number of blocks of the encoder, and of the decoder.
        num_heads: Heads of the attention.
        dropout: Share of the embeddings, and of what a block adds, that is set to zero in training.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        dim: int = 128,
        depth: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.source_embedding = nn.Embedding(source_vocab_size, dim)
        self.target_embedding = nn.Embedding(target_vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(TransformerBlock(dim, num_heads, dropout) for _ in range(depth))
        self.decoder = nn.ModuleList(DecoderBlock(dim, num_heads, dropout) for _ in range(depth))
        self.norm_source, self.norm_target = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.head = nn.Linear(dim, target_vocab_size, bias=False)
        self.head.weight = self.target_embedding.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
        for embedding in (self.source_embedding, self.target_embedding):  # what goes in is scaled up again
            nn.init.normal_(embedding.weight, std=dim**-0.5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map source (B, S) and target tokens (B, T) to logits of the target's next ones (B, T, target_vocab_size)."""
        return self.head(self.write(target, self.start(source))[0])

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to what the first block gets, (B, T, dim)."""
        return self.dropout(embedding(tokens) * embedding.embedding_dim**0.5)

    def start(self, source: Tensor) -> Any:
        """Read source tokens (B, S) and return the state in which writing begins."""
        mask = source != PADDING
        x = self.embed(self.source_embedding, source)
        turns = turns_of(x, self.num_heads)
        for block in self.encoder:
            x = block(x, mask, turns)
        x = self.norm_source(x)
        blocks: Any = self.decoder
        return mask, [block.memory(x) for block in blocks], 0, [None] * len(blocks)

    def write(self, target: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map target tokens (B, T) to what comes out of the last block, (B, T, dim), and the state behind them."""
        mask, memories, start, pasts = state
        x, new = self.embed(self.target_embedding, target), []
        turns = turns_of(x, self.num_heads, start)
        for block, memory, past in zip(self.decoder, memories, pasts, strict=True):
            x, past = block(x, memory, mask, turns, past)
            new.append(past)
        return self.norm_target(x), (mask, memories, start + target.shape[1], new)

    def go_on(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map the last tokens that were written (B, 1) to logits of the next (B, target_vocab_size), and a state."""
        x, state = self.write(tokens, state)
        return self.head(x[:, -1]), state

    def weights(self, source: Tensor, target: Tensor) -> Tensor:
        """Return how much each target token reads from each source token, (B, T, S): the mean of blocks and heads."""
        mask, memories, *_ = self.start(source)
        x, shares = self.embed(self.target_embedding, target), []
        turns = turns_of(x, self.num_heads)
        blocks: Any = self.decoder
        for block, memory in zip(blocks, memories, strict=True):
            asking = x + block.attention(block.norm_attention(x), turns=turns)
            shares.append(block.reading.weights(block.norm_reading(asking), memory, mask).mean(1))
            x, _ = block(x, memory, mask, turns)
        return torch.stack(shares).mean(0)
