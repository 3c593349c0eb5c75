import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from atinuke.compile.onnx_export import to_onnx
from atinuke.plugins.loss_supervised import CrossEntropyLoss, RegressionLoss, SpanLoss

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("lead", [(7,), (3, 5), (2, 3, 4)])
def test_cross_entropy_and_its_gradient_are_torchs(smoothing, lead):
    torch.manual_seed(0)
    scores = torch.randn(*lead, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, lead)
    labels.view(-1)[1::3] = -100
    ours = CrossEntropyLoss(6, smoothing)(scores, labels)
    theirs = F.cross_entropy(scores.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)), **EXACT)


def test_a_text_and_its_padding_count_as_the_text():
    loss, scores, labels = CrossEntropyLoss(6, 0.1), torch.randn(2, 9, 6), torch.randint(6, (2, 9))
    labels[0, 4:] = -100
    rows = torch.cat((scores[0, :4], scores[1])), torch.cat((labels[0, :4], labels[1]))
    torch.testing.assert_close(loss(scores, labels), loss(*rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_label_no_loss(dtype):
    scores = torch.randn(2, 3, 6, dtype=dtype, requires_grad=True)
    loss = CrossEntropyLoss(6, 0.1)(scores, torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


def test_many_in_half_precision_do_not_overflow():
    scores, labels = torch.zeros(100_000, 8, dtype=torch.float16), torch.zeros(100_000, dtype=torch.int64)
    torch.testing.assert_close(CrossEntropyLoss(8)(scores, labels).item(), 2.0794, rtol=1e-3, atol=0)


def test_a_label_beyond_the_classes_is_an_error():
    with pytest.raises(RuntimeError, match="out of bounds"):
        CrossEntropyLoss(6)(torch.randn(2, 6), torch.tensor([1, 6]))


def test_ignored_labels_in_onnx_runtime():
    loss, rows = CrossEntropyLoss(6, 0.1), Dim("rows", min=1, max=64)
    example = (torch.randn(4, 6), torch.randint(6, (4,)))
    program = torch.export.export(loss, example, dynamic_shapes=({0: rows}, {0: rows}))
    file = to_onnx(program, 20).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    for ignored in ([], [0], [1, 3], [*range(5)]):
        scores, labels = torch.randn(5, 6), torch.randint(6, (5,))
        labels[ignored] = -100
        (got,) = session.run(None, dict(zip(names, (scores.numpy(), labels.numpy()), strict=True)))
        torch.testing.assert_close(torch.tensor(got), loss(scores, labels))


def test_regression_is_the_mean_squared_error_of_what_counts():
    values, labels = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    torch.testing.assert_close(RegressionLoss()(values, labels), F.mse_loss(values, labels))
    mask = torch.tensor([[True, False, True, False]]).expand(3, 4)
    hidden = labels.masked_fill(~mask, float("nan"))
    loss = RegressionLoss()(values, hidden, mask)
    torch.testing.assert_close(loss, F.mse_loss(values[:, ::2], labels[:, ::2]))
    loss.backward()
    assert not values.grad[:, 1::2].any()
    assert values.grad.isfinite().all()


def test_regression_of_nothing_is_zero_and_a_label_that_is_no_number_shows():
    values, labels = torch.randn(3, requires_grad=True), torch.full((3,), float("nan"))
    loss = RegressionLoss()(values, labels, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()
    assert RegressionLoss()(values, labels).isnan()


def test_span_is_cross_entropy_over_positions():
    scores = torch.randn(3, 7, 2, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([[0, 3], [2, 2], [6, -100]])
    labels = F.one_hot(places.clamp(min=0), 7).transpose(1, 2) * (places != -100)[:, None]
    ours = SpanLoss()(scores, labels)
    theirs = F.cross_entropy(scores, places, ignore_index=-100)
    torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)), **EXACT)


def test_any_right_position_will_do_and_hidden_ones_are_none():
    scores = torch.randn(1, 4, 1, dtype=torch.float64)
    labels, mask = torch.tensor([[[1], [1], [0], [1]]]), torch.tensor([[True, True, True, False]])
    chances = scores[0, :3, 0].softmax(0)
    torch.testing.assert_close(SpanLoss(1)(scores, labels, mask), -(chances[0] + chances[1]).log(), **EXACT)
    nothing = torch.zeros(2, 3, 2, requires_grad=True)
    loss = SpanLoss()(nothing, torch.full((2, 3, 2), -100))
    loss.backward()
    assert loss.item() == 0
    assert not nothing.grad.any()
