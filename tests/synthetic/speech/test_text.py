"""Sentences are reproducible, and held-out ones use other content words."""

import random

from latentsync.synthetic.speech import text
from latentsync.synthetic.speech.text import passage, sentence, split_words


def test_sentences_are_reproducible_and_diverse():
    first = [sentence(random.Random(seed)) for seed in range(200)]
    assert first == [sentence(random.Random(seed)) for seed in range(200)]
    assert len(set(first)) > 190


def test_splits_have_no_word_in_common():
    for words in (text._NOUNS, text._VERBS, text._ADJECTIVES):
        train, held_out = set(split_words(words, "train")), set(split_words(words, "held_out"))
        assert held_out and not train & held_out and train | held_out == set(words)


def test_held_out_sentences_are_not_training_sentences():
    for language in ("en-us", "de", "fr"):
        training = {sentence(random.Random(seed), language, "train") for seed in range(300)}
        held_out = {sentence(random.Random(1000 + seed), language, "held_out") for seed in range(300)}
        assert not training & held_out


def test_passage_has_the_requested_number_of_sentences():
    generator = random.Random(3)
    expected = " ".join(sentence(generator, "de") for _ in range(3))
    assert passage(random.Random(3), "de", sentences=3) == expected
