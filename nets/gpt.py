"""Language Models are Unsupervised Multitask Learners (Radford et al. 2019), a transformer that reads backwards only.

Differs from the paper: positions are rotations of queries and keys (https://arxiv.org/abs/2104.09864), which tell how
far apart two tokens are; so a text may go on for longer than the windows that were trained on, if none reads farther.
"""

from typing import Any

from torch import Tensor, nn

from nets.attention import Past, TransformerBlock, turns_of


class GPT(nn.Module):
    """Causal transformer blocks; what a token is and what comes next are told by the same numbers (tied embeddings).

    Args:
        vocab_size: Number of different tokens.
        dim: Width of a token; divides by ``2 * num_heads``.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        reach: Tokens that are remembered when a text goes on; farther apart than in training, they mislead.
        dropout: Share of what a block adds that is set to zero in training.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 192,
        depth: int = 4,
        num_heads: int = 6,
        reach: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.reach = num_heads, reach
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed.2.weight")):  # what is added, depth times two times
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Map tokens (B, T) to logits of the next ones (B, T, vocab_size); there is no state to be carried."""
        x = self.dropout(self.embedding(tokens))
        turns = turns_of(x, self.num_heads)
        for block in self.blocks:
            x = block(x, turns=turns)
        return self.head(self.norm(x)), None

    def go_on(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Map the next tokens (B, T) of a text to logits of the ones behind the last, (B, vocab_size), and a state.

        Args:
            tokens: The whole beginning, then what has come since the call before.
            state: What the call before has returned; None at the start.
        """
        if state is None:
            tokens = tokens[:, -self.reach :]
        start, pasts = state or (0, [None] * len(self.blocks))
        new: list[Past] = []
        x = self.embedding(tokens)
        turns = turns_of(x, self.num_heads, start)
        blocks: Any = self.blocks
        for block, past in zip(blocks, pasts, strict=True):
            x, (keys, values) = block.go_on(x, past, turns)
            new.append((keys[:, :, -self.reach + 1 :], values[:, :, -self.reach + 1 :]))
        return self.head(self.norm(x[:, -1])), (start + tokens.shape[1], new)
