"""The demo grammar: many words, clean sentences, none twice.

Authors
 * The speechbrain-ee contributors 2026
"""

import re

import numpy as np

from speechbrain_ee.data.demo import text as demo_text


def test_grammar_has_many_words_and_says_them_all():
    words = demo_text.vocabulary()
    assert len(words) >= 400
    said = demo_text.draw_sentences(3000, np.random.default_rng(0), set())
    heard = {word for s in said for word in demo_text.transcript(s).split()}
    assert heard == words


def test_sentences_are_letters_and_of_moderate_length():
    said = demo_text.draw_sentences(2000, np.random.default_rng(1), set())
    texts = [demo_text.transcript(sentence) for sentence in said]
    assert all(re.fullmatch(r"[A-Z']+( [A-Z']+)*", text) for text in texts)
    assert {3 <= len(text.split()) <= 12 for text in texts} == {True}
    assert len(set(texts)) == len(texts)
    assert not any(re.search(r"\bA [AEIOU]", text) for text in texts)


def test_sentences_avoid_what_is_taken():
    taken: set[str] = set()
    first = demo_text.draw_sentences(300, np.random.default_rng(2), taken)
    again = demo_text.draw_sentences(300, np.random.default_rng(2), taken)
    assert not set(first) & set(again)
    assert len(taken) == 600
