"""Neural Machine Translation by Jointly Learning to Align and Translate, https://arxiv.org/abs/1409.0473.

Differs from the paper: a first layer of the decoder asks and a second one tells, so that all steps of a training text
are computed at once (as in https://arxiv.org/abs/1609.08144); target tokens are read and told by the same numbers.
"""

from typing import Any

import torch
from torch import Tensor, nn

from nets.attention import PADDING

State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # mask, memory, keys, states of the two layers of the decoder


class AttentionGRU(nn.Module):
    """Gated recurrent units read the source in both directions and write the target with additive attention.

    Args:
        source_vocab_size: Number of different tokens of the source; number 0 is padding.
        target_vocab_size: The same of the target.
        dim: Width of a token.
        width: Numbers that a layer holds.
        dropout: Share of what goes into the layers, and of what comes out, that is set to zero in training.
    """

    def __init__(
        self, source_vocab_size: int, target_vocab_size: int, dim: int = 128, width: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_vocab_size, dim)
        self.target_embedding = nn.Embedding(target_vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.onwards, self.backwards = (nn.GRU(dim, width, batch_first=True) for _ in range(2))
        self.begin = nn.Linear(2 * width, 2 * width)
        self.asking = nn.GRU(dim, width, batch_first=True)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(2 * width, width)
        self.energy = nn.Linear(width, 1, bias=False)
        self.telling = nn.GRU(3 * width, width, batch_first=True)
        self.out = nn.Linear(3 * width, dim)
        self.head = nn.Linear(dim, target_vocab_size)
        self.head.weight = self.target_embedding.weight
        for embedding in (self.source_embedding, self.target_embedding):  # what goes in is scaled up again
            nn.init.normal_(embedding.weight, std=dim**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map source (B, S) and target tokens (B, T) to logits of the target's next ones (B, T, target_vocab_size)."""
        return self.write(target, self.start(source))[0]

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to what the first layer gets, (B, T, dim)."""
        return self.dropout(embedding(tokens) * embedding.embedding_dim**0.5)

    def start(self, source: Tensor) -> State:
        """Read source tokens (B, S) and return the state in which writing begins."""
        mask = source != PADDING
        x = self.embed(self.source_embedding, source)
        places = torch.arange(source.shape[1], device=source.device)
        lengths = mask.sum(1, keepdim=True)
        turned = torch.where(places < lengths, lengths - 1 - places, places)[:, :, None]  # padding stays behind
        onwards, _ = self.onwards(x)
        backwards, _ = self.backwards(rows(x, turned))
        last = (lengths - 1)[:, :, None]
        ends = torch.cat([rows(onwards, last), rows(backwards, last)], dim=2)[:, 0]
        asking, telling = torch.tanh(self.begin(ends)).chunk(2, dim=1)
        memory = self.dropout(torch.cat([onwards, rows(backwards, turned)], dim=2))
        return mask, memory, self.key(memory), asking, telling

    def ask(self, queries: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
        """Return how much each of the queries (B, T, width) reads from each of the keys (B, S, width), (B, T, S)."""
        energies = self.energy(torch.tanh(self.query(queries)[:, :, None] + keys[:, None])).squeeze(3)
        return torch.softmax(energies.masked_fill(~mask[:, None], -torch.inf), dim=2)

    def write(self, target: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """Return logits of the next tokens, the state behind them, and what each token read from, (B, T, S)."""
        mask, memory, keys, asking, telling = state
        queries, last_asking = self.asking(self.embed(self.target_embedding, target), asking[None].contiguous())
        shares = self.ask(queries, mask, keys)
        read = shares @ memory
        told, last_telling = self.telling(torch.cat([queries, read], dim=2), telling[None].contiguous())
        x = self.out(self.dropout(torch.cat([told, read], dim=2)))
        return self.head(self.dropout(x)), (mask, memory, keys, last_asking[0], last_telling[0]), shares

    def go_on(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map the last tokens that were written (B, 1) to logits of the next (B, target_vocab_size), and a state."""
        logits, state, _ = self.write(tokens, state)
        return logits[:, -1], state

    def weights(self, source: Tensor, target: Tensor) -> Tensor:
        """Return how much each target token reads from each source token, (B, T, S)."""
        return self.write(target, self.start(source))[2]


def rows(x: Tensor, places: Tensor) -> Tensor:
    """Return what stands at places (B, T, 1) of sequences (B, S, D), (B, T, D).

    ``take_along_dim`` would do, but for exports, which it ties to one length.
    """
    return x.gather(1, places.expand(-1, -1, x.shape[2]))
