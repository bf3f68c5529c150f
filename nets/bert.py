"""BERT, https://arxiv.org/abs/1810.04805: a transformer that reads in both directions.

Differs from the paper: norms come before what they normalize, positions are rotations of queries and keys
(https://arxiv.org/abs/2104.09864) rather than a table, nothing tells two sentences apart, and a text is classified by
the mean of its tokens rather than by one that is put before it.

The last of the tokens stands for no text: it hides others from the one net, and fills short texts up for the other.
"""

from torch import Tensor, nn

from nets.attention import TransformerBlock, turns_of


class Encoder(nn.Module):
    """Transformer blocks that map tokens to what they mean where they stand.

    Args:
        vocab_size: Number of different tokens.
        dim: Width of a token; divides by ``2 * num_heads``.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        dropout: Share of what a block adds that is set to zero in training.
    """

    def __init__(self, vocab_size: int, dim: int, depth: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed.2.weight")):  # what is added, depth times two times
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, T), of which a mask (B, T) may leave some out, to their meanings (B, T, dim)."""
        x = self.dropout(self.embedding(tokens))
        turns = turns_of(x, self.num_heads)
        for block in self.blocks:
            x = block(x, mask, turns)
        return self.norm(x)


class BERT(nn.Module):
    """Tells missing tokens; what a token is and what is missing are told by the same numbers (tied embeddings).

    Args:
        vocab_size: Number of different tokens, the one that hides others included.
        dim: Width of a token; divides by ``2 * num_heads``.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        dropout: Share of what a block adds that is set to zero in training.
    """

    def __init__(
        self, vocab_size: int, dim: int = 128, depth: int = 2, num_heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = Encoder(vocab_size, dim, depth, num_heads, dropout)
        self.head = nn.Linear(dim, vocab_size)
        self.head.weight = self.encoder.embedding.weight
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, asked: Tensor | None = None) -> Tensor:
        """Map tokens (B, T) to logits of the true ones, (B, T, vocab_size), or (K, vocab_size) where asked (B, T)."""
        x = self.encoder(tokens)
        return self.head(x if asked is None else x[asked])


class BERTClassifier(nn.Module):
    """Tells the class of a text from the mean of what its tokens mean; starts from a ``BERT`` of the same size.

    Args:
        vocab_size: Number of different tokens, the one that fills short texts up included.
        num_classes: Number of classes.
        dim: Width of a token; divides by ``2 * num_heads``.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        dropout: Share of what a block adds, and of the mean, that is set to zero in training.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        dim: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(vocab_size, dim, depth, num_heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T), filled up at the ends, to class logits (B, num_classes)."""
        there = tokens != self.encoder.embedding.num_embeddings - 1
        x = self.encoder(tokens, there) * there[:, :, None]
        mean = x.sum(1) / there.sum(1, keepdim=True)  # (B, dim)
        return self.head(self.dropout(mean))
