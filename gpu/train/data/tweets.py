"""COV-tw: train.tsv, valid.tsv and test.tsv of WNUT-2020, task 2 (Nguyen et al., 2020): Id, Text, Label, no quoting.

The 1,000 tweets of valid.tsv are the validation split, as in the paper.
"""

from functools import partial
from pathlib import Path

from gpu.train.data import files, text, vectors
from gpu.train.data.dataset import Dataset
from gpu.train.data.table1 import Counts, require_counts
from gpu.train.errors import DataError

FOLDER, PARTS = "cov-tw", ("train", "valid", "test")
PUT = (
    f"{FOLDER}/train.tsv, {FOLDER}/valid.tsv and {FOLDER}/test.tsv of WNUT-2020 task 2, for which its organizers are "
    "to be asked: https://github.com/VinAIResearch/COVID19Tweet"
)
HEADER, LABELS = ["Id", "Text", "Label"], ("INFORMATIVE", "UNINFORMATIVE")
LENGTH = 64  # words


def load(folder: Path | None, *, scaling: str, counts: Counts) -> Dataset:
    """Raises DataError, naming file and line."""
    folder = files.require_folder(folder, "cov-tw", f"{PUT}; and {vectors.PUT}")
    paths = [files.require_file(folder / FOLDER / f"{part}.tsv", PUT) for part in PARTS]
    files.require_room(folder / FOLDER, sum(path.stat().st_size for path in paths), text.PER_BYTE)
    glove = vectors.find(folder)
    corpus = text.Corpus()
    for part, path in zip(PARTS, paths, strict=True):
        _read(path, part, corpus)
        require_counts(path, counts, **{part: len(corpus.parts[part])})
    return text.dataset("cov-tw", corpus, partial(vectors.read, glove), length=LENGTH, scaling=scaling, classes=LABELS)


def _read(path: Path, part: str, corpus: text.Corpus) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            fields = files.decoded(line.rstrip(b"\r\n"), where).removeprefix("\ufeff").split("\t")
            if number == 1 and fields != HEADER:
                raise DataError(f"{where}: expected the header {HEADER}, separated by tabs; expected {PUT}")
            if number == 1:
                continue
            if len(fields) != len(HEADER) or fields[2] not in LABELS:
                raise DataError(
                    f"{where}: expected an id, a text and {' or '.join(LABELS)}, separated by tabs; expected {PUT}"
                )
            corpus.parts[part].append((corpus.numbered(fields[1]), LABELS.index(fields[2])))
    if not corpus.parts[part]:
        raise DataError(f"{path}: expected tweets, got none; expected {PUT}")
