"""Facts about tasks that a person can compute by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from engine.errors import UserError
from nets.mlp import MLP, MLPEnsemble
from nets.unet import UNet
from tasks.regression import RegressionTask, regression_metrics, scores
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


def test_pixels_are_counted_in_half_precision():
    truth = torch.arange(64 * 64).reshape(1, 64, 64) % 2
    logits = 3.0 * torch.stack([1.0 - truth, truth.float()], dim=1)  # all of them right
    task = segmentation_task()
    with torch.autocast("cpu", torch.bfloat16):
        assert task._loss(logits.bfloat16(), truth) == pytest.approx(float(task._loss(logits, truth)), rel=1e-3)


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


def regression_task(loss: str = "mse", net=MLP) -> RegressionTask:
    task = RegressionTask(net, 2, 1, torch.optim.AdamW, loss=loss)
    task.target_mean.fill_(10.0)
    task.target_deviation.fill_(2.0)
    return task


def test_regression_metrics_of_four_numbers():
    truth, predicted = torch.tensor([[1.0], [2], [3], [6]]), torch.tensor([[1.0], [2], [5], [6]])
    values = regression_metrics()(predicted, truth)
    assert values["rmse"] == pytest.approx(1) and values["mae"] == pytest.approx(0.5)
    assert values["r2"] == pytest.approx(1 - 4 / 14)  # 14 = 4 + 1 + 0 + 9, the squares around the mean of 3
    assert scores(predicted + 1e6, truth + 1e6)["test/r2"] == pytest.approx(1 - 4 / 14, rel=1e-3)


@pytest.mark.parametrize(
    "loss, expected", [("mse", 5), ("mae", 2), ("huber", 1.5), ("rmse", 5**0.5)]
)  # of errors 1 and 3 in standard deviations; Huber: 1 / 2 and 3 - 1 / 2
def test_regression_losses_are_those_of_standardized_values(loss, expected):
    predicted, target = torch.tensor([[1.0], [-3.0]]), torch.tensor([[10.0], [10.0]])
    assert float(regression_task(loss)._loss(predicted, target)) == pytest.approx(expected)


def test_every_member_of_an_ensemble_is_taught_by_itself():
    predicted, target = torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[10.0]])  # two members, right on average
    assert float(regression_task()._loss(predicted, target)) == pytest.approx(1)


def test_a_net_without_the_last_axis_is_refused_not_broadcast():
    with pytest.raises(UserError, match=r"\(4,\) where \(4, 1\)"):
        regression_task()._loss(torch.zeros(4), torch.zeros(4, 1))


def test_regression_answers_in_units_of_the_target():
    task = regression_task(net=partial(MLP, hidden=())).eval()
    task.feature_mean.copy_(torch.tensor([1.0, 2.0]))
    task.feature_deviation.copy_(torch.tensor([1.0, 4.0]))
    task.net.head.weight.data = torch.tensor([[1.0, 1.0]])
    task.net.head.bias.data.zero_()
    assert task(torch.tensor([[2.0, 10.0]])).tolist() == [[16.0]]  # 10 + 2 (1 + 2)


def test_importance_is_the_growth_of_the_error():
    task = regression_task(net=partial(MLP, hidden=())).eval()
    task.net.head.weight.data = torch.tensor([[1.0, 0.0]])
    features = torch.randn(500, 2)
    truth = task(features).detach()
    with torch.no_grad():
        grown = task._importance(features, truth, {"used": [0], "unused": [1]})
    assert grown["unused"] == 0 and grown["used"] == pytest.approx(2 * 2**0.5, rel=0.1)


def test_predictions_stand_beside_the_rows_of_the_file():
    task = regression_task(net=MLPEnsemble).eval()
    batch = {"path": ["a.csv"], "table": ['name,size\n"a, b",01\nNA,2\n'], "features": torch.zeros(1, 2, 2)}
    with torch.no_grad():
        record = task.predict_step(batch, 0)[0]
    rows = record["predictions"]
    assert list(rows) == ["name", "size", "prediction"] and rows["name"].tolist() == ["a, b", "NA"]
    assert rows["size"].tolist() == ["01", "2"] and record["path"] == "a.csv"
