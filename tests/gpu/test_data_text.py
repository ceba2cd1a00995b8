"""COV-TW, IMDb and word vectors in their formats: what is read is what was written; what cannot be read is named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu.train.data import Dataset, tweets, vectors
from gpu.train.errors import DataError
from tests.gpu.data_files import (
    REVIEWS,
    TWEETS,
    WORDS,
    load,
    make,
    pack,
    write_reviews,
    write_tweets,
    write_vectors,
)
from tests.gpu.spoken import heard, spoken

EPS = torch.finfo(torch.float32).eps

TEXT = st.text(st.sampled_from("the good bad\u00e9\u00c97n_,!\u00a0\U0001f600X"), max_size=30)
LABEL = st.sampled_from(["INFORMATIVE", "UNINFORMATIVE"])


def assert_text(made: Dataset, parts: dict[str, list[tuple[str, str]]], numbers: dict[str, list[str]]) -> None:
    """The data set holds the texts and labels of `parts`, and the kernel sees the mean vector of each."""
    for part, (X, y) in {
        "train": (made.X_train, made.y_train),
        "valid": (made.X_valid, made.y_valid),
        "test": (made.X_test, made.y_test),
    }.items():
        if part in parts:
            assert heard(made, X) == [spoken(text, numbers, X.shape[1]) for text, _ in parts[part]]
            assert [made.classes[k] for k in y] == [label for _, label in parts[part]]
        else:
            assert X is None
    means = [np.mean(vs, 0) if vs else np.zeros(made.features) for vs in heard(made, made.X_train)]
    np.testing.assert_allclose(made.kernel_train.numpy(), np.array(means), rtol=4 * EPS, atol=4 * EPS)


@given(data=st.data())
def test_tweets_are_read_as_they_were_written_with_the_validation_that_is_given(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("data")
    sizes = {"train": 3, "valid": 2, "test": 2}
    parts = {part: data.draw(st.lists(st.tuples(TEXT, LABEL), min_size=n, max_size=n)) for part, n in sizes.items()}
    parts["train"][0] = "the good", "INFORMATIVE"
    write_tweets(folder, parts)
    numbers = write_vectors(folder)
    assert_text(load("cov-tw", folder), parts, numbers)


@given(data=st.data())
def test_reviews_are_read_as_they_were_written_from_their_folder_and_from_their_archive(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("data")
    texts = {name: data.draw(TEXT.map(lambda text: text + "<br />bad")) for name in REVIEWS}
    write_reviews(folder, texts)
    (folder / "aclImdb" / "README").write_text("not a review")
    (folder / "aclImdb" / "train" / "unsup").mkdir()
    (folder / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("not labelled")
    numbers = write_vectors(folder)
    in_order = sorted(texts, key=lambda name: [name.split("/")[1], name])
    parts = {
        part: [(texts[name], name.split("/")[1]) for name in in_order if name.startswith(part)]
        for part in ("train", "test")
    }
    first = load("imdb", folder)
    assert_text(first, parts, numbers)
    pack(folder, "aclImdb", "aclImdb_v1.tar.gz")
    assert load("imdb", folder).fingerprint() == first.fingerprint()


def test_a_text_is_cut_to_its_first_words_and_filled_up_at_the_end(tmp_path):
    long = " ".join(["the", "unknown"] + ["good"] * (tweets.LENGTH - 2) + ["bad", "virus", "7"])
    write_tweets(tmp_path, {**TWEETS, "test": [(long, "INFORMATIVE"), ("n 7", "INFORMATIVE")]})
    write_vectors(tmp_path)
    made = load("cov-tw", tmp_path)
    the, good, bad, seven, n = (1 + WORDS.index(word) for word in ("the", "good", "bad", "7", "n"))
    assert made.X_test[0].tolist() == [the] + [good] * (tweets.LENGTH - 2) + [bad]
    assert made.X_test[1].tolist() == [n, seven] + [0] * (tweets.LENGTH - 2)


@given(wanted=st.sets(st.sampled_from([*WORDS, "nowhere"])))
def test_of_a_file_of_word_vectors_the_wanted_words_are_read_in_its_order(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("data")
    numbers = write_vectors(folder)
    words, rows = vectors.read(vectors.find(folder), wanted)
    assert words == [word for word in WORDS if word in wanted]
    assert rows.dtype == np.float32
    assert rows.tolist() == [[float(np.float32(float(number))) for number in numbers[word]] for word in words]


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        ("the 1 2 3\ngood 1 2\n", 2, "3 numbers, got 2"),
        ("the 1 2 3\ngood 1 2 3 4\n", 2, "3 numbers, got 4"),
        ("400000 3\nthe 1 2 3\n", 2, "1 numbers, got 3"),
        ("the 1 2 3\n\n", 2, "3 numbers, got 0"),
        ("the\n", 1, "got 0"),
        ("x 1 2 3\nthe 1 two 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 nan 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 1_0 3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1  3\n", 2, "3 numbers separated"),
        ("x 1 2 3\nthe 1 1e39 3\n", 2, "float32"),
        ("the 1 2 3\nx 1 2 3\nthe 1 2 3\n", 3, "'the' was there before, in line 1"),
        ("the 1 2 3\ngood 1 2 3", 2, "cut short"),
        (f"the 1 2 3\n{'x' * 2**21} 1 2 3\n", 2, "longer than"),
    ],
    ids=range(13),
)
def test_word_vectors_that_make_no_sense_are_named_with_their_line(tmp_path, lines, line, what):
    path = tmp_path / "glove.made.txt"
    path.write_text(lines)
    with pytest.raises(DataError, match=rf"glove\.made\.txt, line {line}: .*{what}"):
        vectors.read(path, {"the", "good"})


def test_there_must_be_one_file_of_word_vectors_and_it_must_know_some_of_the_words(tmp_path):
    write_tweets(tmp_path, TWEETS)
    with pytest.raises(DataError, match=r"glove\*\.txt.*glove\.6B\.100d\.txt.*got none"):
        load("cov-tw", tmp_path)
    write_vectors(tmp_path, ["fremd"])
    with pytest.raises(DataError, match="none of the words"):
        load("cov-tw", tmp_path)
    (tmp_path / "glove.other.txt").write_text("the 1 2 3\n")
    with pytest.raises(DataError, match=r"glove\.made\.txt, glove\.other\.txt"):
        load("cov-tw", tmp_path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0\tthe\tINFORMATIV", "INFORMATIVE or UNINFORMATIVE"),
        ("0\tthe\tmore\tINFORMATIVE", "separated by tabs"),
        ("0\tINFORMATIVE", "separated by tabs"),
        ("", "separated by tabs"),
        ("0\t\ud800\tINFORMATIVE", "UTF-8"),
    ],
)
@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_line_of_tweets_that_makes_no_sense_is_named(tmp_path, part, line, what):
    make("cov-tw", tmp_path)
    path = tmp_path / "cov-tw" / f"{part}.tsv"
    whole = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes("\n".join([*whole[:2], line, *whole[2:]]).encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=rf"{part}\.tsv, line 3: .*{what}"):
        load("cov-tw", tmp_path)
    path.write_text("\n".join(whole[1:]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{part}\.tsv, line 1: expected the header"):
        load("cov-tw", tmp_path)
    path.write_text(whole[0] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{part}\.tsv: expected tweets, got none"):
        load("cov-tw", tmp_path)


def test_a_review_that_is_no_text_is_named(tmp_path):
    make("imdb", tmp_path)
    path = tmp_path / "aclImdb" / "train" / "pos" / "0_9.txt"
    path.write_bytes(b"good \xff film")
    with pytest.raises(DataError, match=r"train/pos/0_9\.txt: expected text in UTF-8, got the byte 0xff"):
        load("imdb", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"train/pos/0_9\.txt: this is a folder"):
        load("imdb", tmp_path)
    path.rmdir()
    path.write_text("")
    pack(tmp_path, "aclImdb", "aclImdb_v1.tar.gz")
    with pytest.raises(DataError, match=r"aclImdb_v1\.tar\.gz: aclImdb/train/pos/0_9\.txt: an empty file"):
        load("imdb", tmp_path)
