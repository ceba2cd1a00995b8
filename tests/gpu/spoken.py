"""What the texts of a data set say, word by word, by a rule of tokens of its own."""

import numpy as np
import torch

from gpu.train.data import Dataset


def words_of(text: str) -> list[str]:
    """The rule of tokens, character by character: letters and digits stick together, other characters stand alone."""
    words, open_word = [], False
    for character in text.lower().replace("<br />", " "):
        part_of_word = character.isalnum() or character == "_"
        if part_of_word and open_word:
            words[-1] += character
        elif not character.isspace():
            words.append(character)
        open_word = part_of_word
    return words


def spoken(text: str, numbers: dict[str, list[str]], length: int) -> list[tuple[float, ...]]:
    """The vectors of a text's words, as far as they have any, up to `length`."""
    known = [word for word in words_of(text) if word in numbers]
    return [tuple(float(np.float32(float(number))) for number in numbers[word]) for word in known[:length]]


def heard(made: Dataset, X: torch.Tensor) -> list[list[tuple[float, ...]]]:
    """The same, of a data set; words stand at the beginning of their rows."""
    assert made.vectors is not None
    assert not made.vectors[0].any()
    assert all((row != 0).int().diff().le(0).all() for row in X)
    return [[tuple(made.vectors[k].tolist()) for k in row if k] for row in X]
