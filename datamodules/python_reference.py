"""The Python language reference, which comes with Python: half a million characters on 79 topics.

Its text differs a little from one version of Python to the next (docs.python.org, PSF licence).
"""

from pydoc_data.topics import topics

from datamodules.text import TextDataModule
from datamodules.tokenization import Kind

SHARED = 40  # characters: topics that share so long a line stay on one side


class PythonReferenceDataModule(TextDataModule):
    """The Python language reference. Topics that share passages are in the same part; val and test have a tenth each.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Tokens of a window.
        batch_size: Windows in a batch.
        num_train: Characters to train on, from the start.
    """

    def __init__(
        self,
        kind: Kind = "characters",
        vocab_size: int = 4096,
        context: int = 128,
        batch_size: int = 16,
        num_train: int = 1_000_000,
    ) -> None:
        super().__init__(kind, vocab_size, context, batch_size)
        self.num_train = num_train

    def load(self) -> dict[str, str]:
        parts = {part: "\n\n".join(topics[name] for name in names) for part, names in split_topics().items()}
        return parts | {"train": parts["train"][: self.num_train]}


def split_topics() -> dict[str, list[str]]:
    """Return the topics of every part; those that share a long line are one group."""
    group = {name: name for name in topics}
    first: dict[str, str] = {}  # topic in which a line occurred first
    for name, text in topics.items():
        for line in {line.strip() for line in text.splitlines() if len(line.strip()) >= SHARED}:
            old, new = group[name], group[first.setdefault(line, name)]
            group = {topic: new if label == old else label for topic, label in group.items()}
    groups: dict[str, list[str]] = {}
    for name, label in group.items():
        groups.setdefault(label, []).append(name)
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    wanted = sum(map(len, topics.values())) / 10
    for number, names in enumerate(sorted(groups.values())):
        part = ("val", "test")[number % 2]
        length = sum(len(topics[name]) for name in [*parts[part], *names])
        parts[part if length <= wanted else "train"] += names
    return parts
