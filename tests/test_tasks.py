"""Facts about tasks that a person can compute by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from nets.unet import UNet
from tasks.segmentation import IGNORE, SegmentationTask, segmentation_metrics


def segmentation_task(num_classes: int = 2) -> SegmentationTask:
    names = [str(c) for c in range(num_classes)]
    return SegmentationTask(partial(UNet, width=4, depth=1), 1, num_classes, names, torch.optim.AdamW)


def test_iou_of_a_drawn_mask():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, :2] = 1  # 8 pixels
    predicted = torch.zeros_like(truth)
    predicted[0, 1:3] = 1  # 8 pixels, 4 of them right
    values = segmentation_metrics(2).forward(predicted, truth)
    assert values["per_class"].tolist() == pytest.approx([4 / 12, 4 / 12])
    assert values["iou"] == pytest.approx(1 / 3)
    assert values["pixel_accuracy"] == pytest.approx(0.5)


def test_ignored_pixels_count_for_nothing():
    truth = torch.tensor([[[0, 1], [IGNORE, IGNORE]]])
    predicted = torch.tensor([[[0, 1], [1, 0]]])
    values = segmentation_metrics(2).forward(predicted, truth)
    assert values["iou"] == 1 and values["pixel_accuracy"] == 1
    task, logits = segmentation_task(), torch.randn(1, 2, 2, 2)
    loss = task._loss(logits, truth)
    logits[:, :, 1] = 100.0
    assert task._loss(logits, truth) == loss


def test_iou_is_summed_over_the_data_set_not_averaged_over_batches():
    metrics = segmentation_metrics(2)
    metrics.update(torch.tensor([[[1, 1, 1, 1]]]), torch.tensor([[[1, 1, 1, 1]]]))
    metrics.update(torch.tensor([[[1, 0, 0, 0]]]), torch.tensor([[[0, 0, 0, 0]]]))
    assert metrics.compute()["per_class"].tolist() == pytest.approx([3 / 4, 4 / 5])


def test_the_loss_of_a_perfect_prediction_is_zero_and_of_a_wrong_one_is_not():
    truth = torch.randint(0, 2, (2, 8, 8))
    right = torch.nn.functional.one_hot(truth, 2).movedim(-1, 1) * 50.0
    task = segmentation_task()
    assert float(task._loss(right, truth)) < 1e-3
    assert float(task._loss(-right, truth)) > 10


def test_exposure_does_not_change_the_prediction():
    task, image = segmentation_task().eval(), torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(task(image).argmax(1), task(0.7 * image + 0.2).argmax(1))


def test_masks_are_written_at_the_files_own_size():
    task = segmentation_task(3).eval()
    batch = {"image": torch.rand(1, 1, 20, 30), "size": [torch.tensor([40]), torch.tensor([61])], "path": ["a.png"]}
    with torch.no_grad():
        record = task.predict_step(batch, 0)[0]
    assert record["mask"].size == record["overlay"].size == (61, 40)
    assert record["mask"].mode == "P" and set(np.unique(record["mask"])) <= {0, 1, 2}
