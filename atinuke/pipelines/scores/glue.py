"""GLUE's tasks by GLUE's own metrics (Wang et al., 2019): which metric belongs to which task, and the average.

If the labels or the answers never change, all three correlations are 0, as scikit-learn's Matthews is, where SciPy's
Pearson and Spearman have no number: such answers tell nothing apart.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score, mean_score

METRICS = MappingProxyType(
    {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("f1", "accuracy"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("f1", "accuracy"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
        "ax": ("matthews",),
    }
)
"""The metrics of each task, in the order of GLUE's table."""
AVERAGED = tuple(METRICS)[:9]


def glue(task: str, right: NDArray[np.generic], said: NDArray[np.generic]) -> tuple[Score, ...]:
    """The scores of a task over labels and answers, `[n]` each: numbers of classes (1 is what F1 is the F1 of), or
    numbers where the task asks for similarity.

    Raises:
        AtinukeError: there is no such task, or the two sides are not as long.
    """
    if task not in METRICS:
        raise fail(f"GLUE has no task {task!r}", f"there are {', '.join(METRICS)}")
    if right.shape != said.shape:
        raise fail(f"{task}: each label needs one answer", f"got {len(right):,} labels, {len(said):,} answers")
    return tuple(_score(metric, right, said) for metric in METRICS[task])


def accuracy(right: NDArray[np.generic], said: NDArray[np.generic]) -> Score:
    """The share of answers that are right."""
    return mean_score("accuracy", (right == said).astype(np.float64))


def f1(right: NDArray[np.generic], said: NDArray[np.generic]) -> Score:
    """F1 of class 1; 0 where it is neither right nor said."""
    yes, told = right == 1, said == 1
    return Score("f1", "f1", np.stack([yes & told, yes, yes & told, told], 1).astype(np.float64))


def matthews(right: NDArray[np.generic], said: NDArray[np.generic]) -> Score:
    """Matthews' correlation of classes, of any number of them."""
    classes, which = np.unique(np.concatenate([right, said]), return_inverse=True)
    a, b = np.split(which, 2)
    return Score("matthews", "matthews", np.eye(len(classes) ** 2)[a * len(classes) + b])


def macro_f1(right: NDArray[np.integer], said: NDArray[np.integer], classes: int) -> Score:
    """The mean F1 of the numbered classes that are right or said somewhere."""
    return Score("macro f1", "macro f1", np.eye(classes**2)[right * classes + said])


def correlation(name: str, right: NDArray[np.generic], said: NDArray[np.generic]) -> Score:
    """`pearson` or `spearman` of numbers."""
    return Score(name, name, np.stack([right, said], 1).astype(np.float64))


def average(values: Mapping[str, Sequence[float]]) -> float:
    """GLUE's one number: the mean over its nine tasks of the mean of a task's figures; MNLI's are those of the matched
    and the mismatched rows.

    Raises:
        AtinukeError: a task is missing; an average over fewer is not GLUE's.
    """
    missing = [task for task in AVERAGED if not values.get(task)]
    if missing:
        raise fail("GLUE's average is over its nine tasks", f"there is no figure of {', '.join(missing)}")
    return float(np.mean([np.mean(values[task]) for task in AVERAGED]))


def _score(metric: str, right: NDArray[np.generic], said: NDArray[np.generic]) -> Score:
    match metric:
        case "accuracy":
            return accuracy(right, said)
        case "f1":
            return f1(right, said)
        case "matthews":
            return matthews(right, said)
    return correlation(metric, right, said)
