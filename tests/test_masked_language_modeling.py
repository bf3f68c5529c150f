"""Missing words: what is asked for, how it is hidden, and what counting says."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.tokenization import learn_tokenizer
from nets.bert import BERT
from tasks.masked_language_modeling import FILL, LEARNED, MASKED, MaskedLanguageModelingTask, question

TEXT = "the cat sat on the mat and the dog sat on the cat " * 30


def task_of(**settings) -> MaskedLanguageModelingTask:
    torch.manual_seed(0)
    tokenizer = learn_tokenizer(TEXT, "words", 50).to_str()
    net = partial(BERT, dim=16, depth=1, num_heads=2, **settings)
    return MaskedLanguageModelingTask(net, tokenizer, partial(torch.optim.SGD, lr=0.1)).eval()


def listen(task: MaskedLanguageModelingTask, heard: list[torch.Tensor]) -> None:
    """Take down what the net gets to see."""
    task.net.register_forward_pre_hook(lambda net, inputs: heard.append(inputs[0]))


def batch_of(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"tokens": torch.cat([tokens[:, :1], tokens], dim=1), "counts": torch.ones_like(tokens, dtype=torch.bool)}


def test_what_is_asked_for_does_not_depend_on_the_batch():
    tokens = torch.randint(1, 9, (4, 400), generator=torch.Generator().manual_seed(0))
    shown, asked = question(batch_of(tokens))
    assert torch.equal(shown, tokens)
    assert torch.equal(question(batch_of(tokens[2:3]))[1], asked[2:3])
    assert not torch.equal(asked[0], asked[1]) and float(asked.float().mean()) == pytest.approx(MASKED, abs=0.03)
    batch = batch_of(tokens) | {"counts": torch.zeros_like(tokens, dtype=torch.bool)}
    assert not question(batch)[1].any()


def test_the_net_never_sees_what_it_is_asked_for():
    task, seen = task_of(), []
    tokens = torch.randint(1, 9, (2, 200), generator=torch.Generator().manual_seed(0))
    listen(task, seen)
    task.trainer = SimpleNamespace(validating=True)
    task._measure(task.val_metrics, batch_of(tokens))
    asked = question(batch_of(tokens))[1]
    assert (seen[0][asked] == task.hidden).all() and torch.equal(seen[0][~asked], tokens[~asked])


def test_training_hides_changes_and_leaves():
    task, seen = task_of(), []
    tokens = torch.full((40, 500), 3)
    listen(task, seen)
    task.training_step({"tokens": torch.cat([tokens[:, :1], tokens], dim=1)}, 0)
    hidden = float((seen[0] == task.hidden).float().mean())
    changed = float(((seen[0] != task.hidden) & (seen[0] != 3)).float().mean())
    assert hidden == pytest.approx(0.8 * LEARNED, abs=0.01)
    assert changed == pytest.approx(0.1 * LEARNED, abs=0.005)


def test_counting_knows_what_was_between_the_same_neighbours():
    task = task_of()
    tokens = torch.tensor([task.tokenizer.encode(TEXT).ids])[:, :40]
    data = SimpleNamespace(tokens={"train": (tokens[0].numpy(), None)}, test_dataloader=lambda: [batch_of(tokens)])
    known = task.references(data)["between the same neighbours"]["test/masked_accuracy"]
    asked = question(batch_of(tokens))[1]
    frequent = np.bincount(tokens[0]).argmax()
    expected = float((tokens[asked] == int(frequent)).float().mean())
    assert task.baseline(data)["test/masked_accuracy"] == pytest.approx(expected) and known > expected


def test_missing_words_of_a_text_are_filled_in():
    task = task_of()
    record = task.predict_step({"path": ["a"], "text": [f"the cat {FILL} on the{FILL}"]}, 0)[0]
    assert record["guesses"].count(";") == 1 and FILL not in record["text"] and record["text"].startswith("the cat")
    assert FILL in task.predict_step({"path": ["a"], "text": ["the cat"]}, 0)[0]["guesses"]


def test_asking_for_some_places_says_there_what_asking_for_all_says():
    task = task_of()
    tokens = torch.randint(1, 9, (3, 12), generator=torch.Generator().manual_seed(0))
    asked = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) < MASKED
    torch.testing.assert_close(task.net(tokens, asked), task(tokens)[asked])


def test_the_net_reads_in_both_directions_and_knows_the_order():
    net = task_of().net
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    for changed in ([[9, 2, 3, 4, 5]], [[1, 2, 3, 4, 9]], [[2, 1, 3, 4, 5]]):
        assert not torch.allclose(net(tokens)[0, 2], net(torch.tensor(changed))[0, 2], atol=1e-6)


def test_training_on_a_batch_in_which_nothing_is_hidden_is_finite(monkeypatch):
    monkeypatch.setattr("tasks.masked_language_modeling.LEARNED", 0.0)
    loss = task_of().training_step({"tokens": torch.ones(2, 9, dtype=torch.long)}, 0)
    assert loss.item() == 0.0
