"""From what a net says at every time step to a text: decoding of connectionist temporal classification.

Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf: number 0 is the blank; numbers that follow each
other and are the same are one, unless a blank is between them.
"""

from torch import Tensor


def greedy(logits: Tensor) -> list[Tensor]:
    """Return the likeliest number of every time step, merged, without blanks.

    Args:
        logits: (B, time steps, numbers).

    Returns:
        For every sample its numbers (length,).
    """
    best = logits.argmax(2).cpu()
    return [numbers[numbers > 0] for numbers in map(Tensor.unique_consecutive, best)]


def beam_search(probabilities: Tensor, width: int = 5) -> list[tuple[tuple[int, ...], float]]:
    """Return the likeliest texts of a sample, each with its probability: the sum over all that can be merged to it.

    Prefix search (Hannun et al. 2014, https://arxiv.org/abs/1408.2873), without a language model.

    Args:
        probabilities: (time steps, numbers), each step's sum is 1.
        width: Texts that are kept after every step, and numbers that may come next.

    Returns:
        At most ``width`` texts, the likeliest first.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}  # probability with a blank at the end, without
    values, likeliest = (part.tolist() for part in probabilities.topk(min(width, probabilities.shape[1])))
    for step, blank in enumerate(probabilities[:, 0].tolist()):
        grown: dict[tuple[int, ...], tuple[float, float]] = {}
        for text, (ended, open_) in beams.items():
            add(grown, text, (ended + open_) * blank, 0.0)
            for value, number in zip(values[step], likeliest[step], strict=True):
                if text and number == text[-1]:  # goes on, or comes a second time behind a blank
                    add(grown, text, 0.0, open_ * value)
                    add(grown, (*text, number), 0.0, ended * value)
                elif number:
                    add(grown, (*text, number), 0.0, (ended + open_) * value)
        beams = dict(sorted(grown.items(), key=lambda beam: -sum(beam[1]))[:width])
    return [(text, sum(both)) for text, both in beams.items()]


def add(beams: dict[tuple[int, ...], tuple[float, float]], text: tuple[int, ...], ended: float, open_: float) -> None:
    """Add to the probabilities of a text."""
    before = beams.get(text, (0.0, 0.0))
    beams[text] = before[0] + ended, before[1] + open_
