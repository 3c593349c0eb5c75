"""The files of coreference: what they say, what is wrong with them, and the published ones whole."""

import json
from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.scores import coreference as scores
from atinuke.pipelines.tasks.mentions import Ambiguous, Name, coreference, entities, gap

CONLL = """#begin document (x); part 000
x 0 0 Ann - (0|(1
x 0 1 's - 0)
x 0 2 dog - 1)

x 0 0 saw - -
x 0 1 her - (0)
#end document
#begin document (y); part 000
y 0 0 No - _
#end document
"""
ENTITIES = "#file x\n{}\nhe\tO\tO\t\n#file y\nno\tO\tO\t\n".format(
    "the\tB-PER\tO\t\nking\tI-PER\tO\t\nof\tI-PER\tO\t\nSpain\tI-PER\tB-GPE\t\n"
)
HEAD = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL\n"
ROW = "d-1\tAnn met Bea when she left.\tshe\t17\tAnn\t0\tTRUE\tBea\t8\tFALSE\thttp://x\n"


def write(folder: Path, content: str) -> Path:
    file = folder / "file.txt"
    file.write_text(content, encoding="utf-8")
    return file


def test_columns_of_coreference(tmp_path: Path) -> None:
    first, second = coreference(write(tmp_path, CONLL))
    assert first.words == ("Ann", "'s", "dog", "saw", "her")
    assert first.sentences[1] == ("saw", "her")
    assert first.clusters == (((0, 2), (4, 5)), ((0, 3),))
    assert (first.name, first.where.line, second.clusters) == ("(x); part 000", 2, ())


def test_each_begin_is_a_document(tmp_path: Path) -> None:
    """Parts of one name, and even two of one whole name, stay apart: `coreference` refuses the latter."""
    parts = "".join(f"#begin document (x); part {p}\nx 0 0 Ann - (0)\n#end document\n" for p in ("000", "001", "001"))
    found = list(coreference(write(tmp_path, parts)))
    assert [one.name for one in found] == ["(x); part 000", "(x); part 001", "(x); part 001"]
    assert all(one.clusters == (((0, 1),),) for one in found)


def test_layers_of_entities(tmp_path: Path) -> None:
    first, second = entities(write(tmp_path, ENTITIES))
    assert (first.clusters, first.kinds) == ((((0, 4),), ((3, 4),)), ("PER", "GPE"))
    assert (first.sentences[1], second.name, second.words) == (("he",), "y", ("no",))


def test_rows_of_gap(tmp_path: Path) -> None:
    (row,) = gap(write(tmp_path, HEAD + ROW))
    assert isinstance(row, Ambiguous)
    assert (row.id, row.start, row.a, row.b) == ("d-1", 17, Name("Ann", 0, True), Name("Bea", 8, False))


@pytest.mark.parametrize(
    ("read", "content", "told"),
    [
        (coreference, CONLL.replace("- 1)", "- -"), "file.txt:2  a mention of cluster 1 does not end"),
        (coreference, CONLL.replace("- (0)", "- 2)"), "file.txt:7  `2)` ends what has not begun"),
        (coreference, CONLL.replace("- (0)", "- 0"), "file.txt:7  `0` is no mention"),
        (coreference, CONLL.replace("- (0)", "- (0)|(2)"), "file.txt:7  a mention is in cluster 0 already"),
        (coreference, CONLL.split("\n", 1)[1].replace("#end document\n", "", 1), "outside of a document"),
        (coreference, CONLL + "#begin document (z)\n\n#end document\n", "file.txt:12  has a document without a word"),
        (entities, ENTITIES.replace("B-PER", "O"), "file.txt:2  layer 1: tag 2, I-PER, continues nothing"),
        (entities, ENTITIES.replace("king\tI-PER\tO", "king\tI-PER"), "file.txt:3  has 2 cells\n  expected 3"),
        (entities, ENTITIES.split("\n", 1)[1], "file.txt:1  must begin with `#file NAME`"),
        (gap, HEAD.replace("URL", "Url") + ROW, "file.txt:1  has other columns than GAP"),
        (gap, HEAD + ROW.replace("\thttp", " http"), "file.txt:2  has 10 cells, where GAP has 11 columns"),
        (gap, HEAD + ROW.replace("\tshe\t17", "\twhen\t12"), "file.txt:2  `when` is no pronoun of GAP\n  expected she"),
        (gap, HEAD + ROW.replace("17", "18"), "Pronoun-offset 18 does not point at `she`\n  there stands `he `"),
        (gap, HEAD + ROW.replace("\t8\t", "\t99\t"), "B-offset 99 does not point at `Bea`"),
        (gap, HEAD + ROW.replace("TRUE", "True"), "A-coref is `True`\n  expected TRUE or FALSE"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, read, content: str, told: str) -> None:
    with pytest.raises(AtinukeError) as caught:
        list(read(write(tmp_path, content)))
    assert told in str(caught.value)


def test_the_published_files_are_read(shared: Path) -> None:
    data = shared / "data"
    books = list(coreference(data / "litbank/coref_90books.conll.gz"))
    mentions = sum(len(cluster) for book in books for cluster in book.clusters)
    assert (len(books), sum(len(book.words) for book in books), mentions) == (90, 187_436, 26_006)
    assert sum(len(book.clusters) for book in books) == 7166
    assert scores.coreference([(book.clusters, book.clusters) for book in books])[0].value == pytest.approx(1)
    assert len(list(entities(data / "litbank/entities_90books.tsv.gz"))) == 90
    assert [len(list(gap(data / f"gap/gap-{part}.tsv.gz"))) for part in ("development", "validation")] == [2000, 454]


def test_a_file_of_the_reference_scorers_cases_is_read(shared: Path) -> None:
    folder = shared / "data/coref_scorer_cases"
    (case,) = (one for one in json.loads((folder / "expected.json").read_text()) if one["id"] == "A4")
    ((key,), (response,)) = (list(coreference(folder / case[side])) for side in ("key", "response"))
    found = {score.name: score.value for score in scores.coreference([(key.clusters, response.clusters)])}
    assert found["BLANC"] == pytest.approx(case["expected"]["blanc"]["f1"], abs=1e-5)
