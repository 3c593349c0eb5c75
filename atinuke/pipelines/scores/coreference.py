"""Coreference as the reference scorer of CoNLL-2012 counts it (version 8; Pradhan et al., 2014), and LEA.

Everything follows from one table a document: how many mentions the i-th cluster of the key and the j-th of the response
have in common. Mentions are anything that can be compared, such as (start, end). Singletons count wherever they are in
the key or the response; mentions of one side only ("twinless") are in no cell of the table, but in the sizes. A mention
that the response gives twice counts where it comes first.

Sources: MUC, Vilain et al. (1995); B³, Bagga and Baldwin (1998); CEAF, Luo (2005); BLANC, Luo et al. (2014); LEA,
Moosavi and Strube (2016).
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from atinuke.core.errors import fail
from atinuke.pipelines.scores.score import Score, Values

Clusters = Sequence[Collection[Hashable]]


@dataclass(frozen=True)
class Table:
    """The common mentions `[key, response]`, and the sizes of the clusters of both sides."""

    common: Values
    key: Values
    response: Values


def table(key: Clusters, response: Clusters) -> Table:
    """The table of a document.

    Raises:
        AtinukeError: a mention is in two clusters of the key.
    """
    where: dict[Hashable, int] = {}
    for i, cluster in enumerate(key):
        for mention in cluster:
            if where.setdefault(mention, i) != i:
                raise fail(f"the mention {mention} is in two clusters of the key")
    said: dict[Hashable, int] = {}
    for j, cluster in enumerate(response):
        for mention in cluster:
            said.setdefault(mention, j)
    common = np.zeros((len(key), len(response)))
    for mention, i in where.items():
        if mention in said:
            common[i, said[mention]] += 1
    sizes = (np.bincount(list(place.values()), minlength=n) for place, n in ((where, len(key)), (said, len(response))))
    a, b = (size.astype(np.float64) for size in sizes)
    return Table(common[a > 0][:, b > 0], a[a > 0], b[b > 0])


def coreference(documents: Sequence[tuple[Clusters, Clusters]]) -> tuple[Score, ...]:
    """The scores of key and response of each document; a row is a document. First the CoNLL F1, the mean of the F1 of
    MUC, B³ and CEAF-φ4, then these, CEAF-φ3, LEA, BLANC, and F1 of mentions.

    Raises:
        AtinukeError: see `table`; SciPy is not installed.
    """
    tables = [table(key, response) for key, response in documents]

    def rows(metric: "Metric", columns: int = 4) -> Values:
        return np.array([metric(one) for one in tables], np.float64).reshape(-1, columns)

    three = [rows(metric) for metric in (muc, b_cubed, ceaf_entities)]
    f1s = zip(("MUC", "B³", "CEAF-φ4"), three, strict=True)
    others = (("CEAF-φ3", ceaf_mentions), ("LEA", lea), ("mentions", mentions))
    return (
        Score("CoNLL F1", "conll", np.concatenate(three, 1)),
        *(Score(name, "f1", values) for name, values in f1s),
        *(Score(name, "f1", rows(metric)) for name, metric in others),
        Score("BLANC", "blanc", rows(blanc, 8)),
    )


Counts = tuple[float, ...]
"""Numerator and denominator of recall, then of precision."""
Metric = Callable[[Table], Counts]


def muc(of: Table) -> Counts:
    """Links: a cluster of n mentions has n - 1, and is common as far as it is in one piece."""
    common = float(np.maximum(of.common - 1, 0).sum())
    return common, float((of.key - 1).sum()), common, float((of.response - 1).sum())


def b_cubed(of: Table) -> Counts:
    """The share of each mention's cluster that it is with on the other side too."""
    squares = of.common**2
    recall, precision = float((squares.sum(1) / of.key).sum()), float((squares.sum(0) / of.response).sum())
    return recall, float(of.key.sum()), precision, float(of.response.sum())


def ceaf_mentions(of: Table) -> Counts:
    """φ3: the common mentions of clusters aligned one to one at best."""
    common = _aligned(of.common)
    return common, float(of.key.sum()), common, float(of.response.sum())


def ceaf_entities(of: Table) -> Counts:
    """φ4: the likeness, 2 * common / both sizes, of clusters aligned one to one at best."""
    likeness = _aligned(2 * of.common / (of.key[:, None] + of.response))
    return likeness, float(len(of.key)), likeness, float(len(of.response))


def lea(of: Table) -> Counts:
    """Links between any two mentions of a cluster, as far as they are found, clusters weighing as much as they have
    mentions; a singleton has a link to itself, which only a singleton finds."""
    pairs = _pairs(of.common)
    alone = (of.common == 1) & (of.key[:, None] == 1) & (of.response == 1)
    recall, precision = (
        float((size * (pairs + alone).sum(axis) / np.where(size == 1, 1, _pairs(size))).sum())
        for size, axis in ((of.key, 1), (of.response, 0))
    )
    return recall, float(of.key.sum()), precision, float(of.response.sum())


def blanc(of: Table) -> Counts:
    """Links between any two mentions of a cluster, and non-links between any two of different clusters."""
    links, key, response = (float(_pairs(counts).sum()) for counts in (of.common, of.key, of.response))
    all_key, all_response = (float(_pairs(size.sum())) for size in (of.key, of.response))
    within_key, within_response = (float(_pairs(of.common.sum(axis)).sum()) for axis in (1, 0))
    others = float(_pairs(of.common.sum())) - within_key - within_response + links
    return links, key, links, response, others, all_key - key, others, all_response - response


def mentions(of: Table) -> Counts:
    """The mentions themselves, whatever their clusters."""
    common = float(of.common.sum())
    return common, float(of.key.sum()), common, float(of.response.sum())


def _pairs(counts: Values) -> Values:
    return counts * (counts - 1) / 2


def _aligned(likeness: Values) -> float:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise fail("CEAF needs SciPy", fix="pip install 'atinuke[evaluation]'") from None
    return float(likeness[linear_sum_assignment(likeness, maximize=True)].sum())
