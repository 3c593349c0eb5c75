import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atinuke.plugins.head import ClassificationHead, ProjectionHead, RegressionHead, VocabularyHead
from atinuke.plugins.loss import VocabularyLoss
from atinuke.plugins.text import TextEmbedding


def losses(rows, ignored, dtype=torch.float64, shape=None, smoothing=0.0):
    """Loss and gradients: ours, and those of torch's cross-entropy of the whole scores."""
    torch.manual_seed(rows)
    module = VocabularyLoss(6, 11, smoothing).to(dtype)
    with torch.no_grad():
        module.weight.normal_()
    x = torch.randn(shape or (rows,), dtype=dtype).unsqueeze(-1).repeat_interleave(6, -1).requires_grad_()
    labels = torch.randint(11, x.shape[:-1])
    labels.view(-1)[:ignored] = -100
    found = []
    for loss in (
        module(x, labels),
        F.cross_entropy(
            (x @ module.weight.t()).flatten(0, -2), labels.flatten(), ignore_index=-100, label_smoothing=smoothing
        ),
    ):
        found.append((loss, *torch.autograd.grad(3 * loss, (x, module.weight))))
    return found


@pytest.mark.parametrize(("rows", "ignored"), [(1, 0), (7, 0), (8, 3), (256, 0), (257, 9), (600, 37)])
def test_loss_and_gradients_are_torchs(rows, ignored):
    for got, expected in zip(*losses(rows, ignored), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
@pytest.mark.parametrize(("rows", "ignored"), [(1, 0), (8, 3), (600, 37)])
def test_smoothed_loss_and_gradients_are_torchs(rows, ignored, smoothing):
    for got, expected in zip(*losses(rows, ignored, smoothing=smoothing), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_each_token_may_have_an_offset():
    """As BERT's head: loss and gradients are torch's, and the head with these weights gives the scores."""
    torch.manual_seed(0)
    loss, head = VocabularyLoss(6, 11, offset=True).double(), VocabularyHead(6, 11, offset=True).double()
    with torch.no_grad():
        loss.weight.normal_()
        loss.bias.normal_()
    head.load_state_dict(loss.state_dict())
    x, labels = torch.randn(9, 6, dtype=torch.float64, requires_grad=True), torch.randint(11, (9,))
    found = torch.autograd.grad(loss(x, labels), (x, loss.weight, loss.bias))
    expected = torch.autograd.grad(F.cross_entropy(head(x), labels), (x, head.weight, head.bias))
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(ValueError, match="smoothing must be at least 0 and below 1"):
        VocabularyLoss(6, 11, smoothing)


def test_any_leading_axes():
    for got, expected in zip(*losses(30, 4, shape=(2, 5, 3)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_sums_in_float32():
    for got, expected in zip(*losses(1000, 100, torch.bfloat16), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-3)


def test_nothing_to_learn_is_zero():
    module = VocabularyLoss(6, 11)
    x = torch.randn(2, 5, 6, requires_grad=True)
    loss = module(x, torch.full((2, 5), -100))
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()
    assert not module.weight.grad.any()


def test_loss_without_gradients_is_the_same():
    module, x, labels = VocabularyLoss(6, 11), torch.randn(20, 6), torch.randint(11, (20,))
    with torch.no_grad():
        assert module(x, labels) == module(x, labels).detach()
    frozen = VocabularyLoss(6, 11).requires_grad_(False)
    frozen.load_state_dict(module.state_dict())
    x.requires_grad_()
    assert torch.equal(torch.autograd.grad(frozen(x, labels), x)[0], torch.autograd.grad(module(x, labels), x)[0])


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.numel())
        return result


def test_scores_are_never_held_whole():
    module, x, labels = VocabularyLoss(4, 1000), torch.randn(2000, 4, requires_grad=True), torch.randint(1000, (2000,))
    with Largest() as largest:
        module(x, labels).backward()
    assert largest.numel <= 2000 * 1000 / 4


def test_under_autocast():
    module, x, labels = VocabularyLoss(16, 50), torch.randn(40, 16, requires_grad=True), torch.randint(50, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(x.bfloat16(), labels)
    assert loss.dtype == torch.float32
    expected = F.cross_entropy(x @ module.weight.t(), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-2)
    for got, wanted in zip(
        torch.autograd.grad(loss, (x, module.weight)), torch.autograd.grad(expected, (x, module.weight)), strict=True
    ):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-3)


def test_head_is_a_product_and_can_be_tied():
    embedding, head = TextEmbedding(11, 6), VocabularyHead(6, 11)
    head.weight = embedding.weight
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(head(x), x @ embedding.weight.t())
    assert VocabularyLoss(6, 11).state_dict().keys() == head.state_dict().keys() == {"weight"}


def test_exports_with_free_sizes():
    module = VocabularyLoss(6, 11)
    batch, sequence = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("sequence", min=1, max=64)
    free = {0: batch, 1: sequence}
    example = (torch.randn(2, 5, 6), torch.randint(11, (2, 5)))
    program = torch.export.export(module, example, dynamic_shapes=(free, free))
    for shape in ((1, 1), (7, 40)):
        x, labels = torch.randn(*shape, 6), torch.randint(11, shape)
        torch.testing.assert_close(program.module()(x, labels), module(x, labels))


def test_classification_and_regression_are_linear():
    x, classes, number = torch.randn(2, 3, 6), ClassificationHead(6, 4), RegressionHead(6)
    with torch.no_grad():
        classes.bias.normal_()
        number.bias.normal_()
    torch.testing.assert_close(classes(x), x @ classes.weight.t() + classes.bias)
    torch.testing.assert_close(number(x), x @ number.weight[0] + number.bias[0])


def test_projection_is_clips():
    head, x = ProjectionHead(6, 4).double(), torch.randn(5, 6, dtype=torch.float64)
    projected = x @ head.weight.t()
    torch.testing.assert_close(head(x), projected / projected.norm(dim=-1, keepdim=True), rtol=1e-9, atol=1e-9)
    plain = ProjectionHead(6, 4, normalise=False).double()
    plain.load_state_dict(head.state_dict())
    torch.testing.assert_close(plain(x), projected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_projection_of_nothing_is_nothing(dtype):
    head = ProjectionHead(6, 4).to(dtype)
    x = torch.zeros(2, 6, dtype=dtype, requires_grad=True)
    y = head(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()
