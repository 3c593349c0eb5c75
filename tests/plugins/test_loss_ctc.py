import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from atinuke.plugins.loss_ctc import CTCLoss

EXACT = {"rtol": 1e-11, "atol": 1e-11}


def collapse(path, blank):
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def brute_force(log_probs, labels, blank):
    """Minus the logarithm of the summed probability of all alignments that spell the labels."""
    frames, classes = log_probs.shape
    total = sum(
        math.exp(sum(log_probs[t, label].item() for t, label in enumerate(path)))
        for path in itertools.product(range(classes), repeat=frames)
        if collapse(path, blank) == tuple(labels)
    )
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("labels", [[1], [1, 1], [1, 3], [3, 1, 3], [1, 1, 1], [3, 3, 1, 1]])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_is_the_sum_over_all_alignments(blank, labels, frames):
    torch.manual_seed(frames)
    scores = torch.randn(1, frames, 4, dtype=torch.float64)
    loss, unaligned = CTCLoss(4, blank)(scores, torch.tensor([labels]))
    expected = brute_force(scores[0].log_softmax(-1), labels, blank)
    assert unaligned.item() == (expected == math.inf)
    assert loss.item() == pytest.approx(0 if expected == math.inf else expected / len(labels), rel=1e-12)


def example():
    torch.manual_seed(0)
    scores = torch.randn(4, 9, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 2, 2, 4], [3, -100, -100, -100], [4, 4, -100, -100], [1, 2, 3, -100]])
    return scores, labels, torch.tensor([9, 4, 6, 3])


def test_is_torchs_and_so_is_its_gradient():
    scores, labels, frames = example()
    mask = torch.arange(9) < frames[:, None]
    ours = CTCLoss(5)(scores, labels, mask).loss
    lengths = (labels != -100).sum(1)
    theirs = F.ctc_loss(scores.log_softmax(-1).transpose(0, 1), labels, frames, lengths)
    torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(*(torch.autograd.grad(2 * loss, scores)[0] for loss in (ours, theirs)), **EXACT)


def test_log_probabilities_are_taken_as_they_are():
    scores, labels, _ = example()
    torch.testing.assert_close(CTCLoss(5)(scores.log_softmax(-1), labels).loss, CTCLoss(5)(scores, labels).loss)


def test_padding_may_stand_anywhere():
    scores, labels, frames = example()
    mask = torch.arange(9) < frames[:, None]
    expected = CTCLoss(5)(scores, labels, mask).loss
    (gradient,) = torch.autograd.grad(expected, scores)
    spread = torch.zeros(4, 14, dtype=torch.bool)
    spread[:, [0, 2, 3, 5, 6, 8, 9, 11, 13]] = True
    wide = torch.full((4, 14, 5), 3.0, dtype=torch.float64)
    wide[spread] = scores.detach().flatten(0, 1)
    wide.requires_grad_()
    keep = spread.clone()
    keep[spread] = mask.flatten()
    holes = torch.full((4, 7), -100)
    holes[:, [0, 2, 5, 6]] = labels
    loss = CTCLoss(5)(wide, holes, keep).loss
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(loss, wide)[0][spread].view(4, 9, 5), gradient, **EXACT)


def test_rows_that_cannot_be_aligned_are_counted_and_left_out():
    scores, labels, frames = example()
    mask = torch.arange(9) < frames[:, None]
    mask[1] = False  # a label and no frame
    labels[3] = torch.tensor([1, 1, 2, -100])  # three labels, three frames, but a blank must stand between
    loss, unaligned = CTCLoss(5)(scores, labels, mask)
    assert unaligned.item() == 2
    torch.testing.assert_close(loss, CTCLoss(5)(scores[::2], labels[::2], mask[::2]).loss, **EXACT)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all()
    assert not gradient[1::2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_labels_do_not_count(dtype):
    scores, labels, _ = example()
    scores = scores.detach().to(dtype).requires_grad_()
    loss, unaligned = CTCLoss(5)(scores, torch.full_like(labels, -100))
    loss.backward()
    assert (loss.item(), unaligned.item(), loss.dtype) == (0, 0, dtype)
    assert not scores.grad.any()
    labels[2:] = -100
    torch.testing.assert_close(CTCLoss(5)(scores, labels).loss, CTCLoss(5)(scores[:2], labels[:2]).loss)


def test_scores_that_are_no_numbers_show():
    scores, labels, _ = example()
    loss, unaligned = CTCLoss(5)(scores * float("nan"), labels)
    assert loss.isnan()
    assert unaligned.item() == 0


@pytest.mark.parametrize("label", [0, 5, -1])
def test_labels_that_are_none_are_an_error(label):
    scores, labels, _ = example()
    labels[1, 0] = label
    with pytest.raises(IndexError, match=f"0 to 4 but the blank 0: {label}"):
        CTCLoss(5)(scores, labels)
