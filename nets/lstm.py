"""Generating Sequences With Recurrent Neural Networks (Graves 2013, https://arxiv.org/abs/1308.0850).

Differs from the paper: what a token is and what comes next are told by the same numbers (tied embeddings,
https://arxiv.org/abs/1608.05859), and dropout between the layers (https://arxiv.org/abs/1409.2329).
"""

from itertools import pairwise

from torch import Tensor, nn

State = tuple[Tensor, Tensor]  # of all layers, (depth, B, width) each


class LSTM(nn.Module):
    """Layers of long short-term memory that read a text token by token.

    Args:
        vocab_size: Number of different tokens.
        dim: Width of a token.
        width: Numbers that a layer holds; the last one holds ``dim``.
        depth: Number of layers.
        dropout: Share of the numbers between two layers that is set to zero in training.
    """

    carries_state = True  # batches go on where the one before has ended

    def __init__(self, vocab_size: int, dim: int = 128, width: int = 384, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [dim, *[width] * (depth - 1), dim]
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(nn.LSTM(a, b, batch_first=True) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, vocab_size)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # what comes out is small, what goes in is scaled up
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Map tokens (B, T) to logits of the next ones (B, T, vocab_size), and the state to go on from.

        Args:
            tokens: Tokens.
            state: What the call before has returned; None at the start.
        """
        x, new = self.dropout(self.embedding(tokens) * self.embedding.embedding_dim**0.5), []
        for i, layer in enumerate(self.layers):
            x, (hidden, cell) = layer(x, state[i] if state else None)
            x = self.dropout(x)
            new.append((hidden.detach(), cell.detach()))
        return self.head(x), new

    def go_on(self, tokens: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Map the next tokens (B, T) of a text to logits of the ones behind the last, (B, vocab_size), and a state."""
        logits, state = self(tokens, state)
        return logits[:, -1], state
