"""Transcripts that look the same train and score the same.

Protects: that text is normalised before tokenizer, training and scoring, in
one way; that a reference is what its tokens decode to; that what no model
could recognise is told, with counts. Seen before: decomposed transcripts
refused in an empty folder, Thai learned perfectly and scored at 66.7 % WER,
a lower-case test set at 100 % without a word.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import logging
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

from speechbrain_ee.data.batches import make_datasets
from speechbrain_ee.data.corpora import read_split
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.data.words import decode, librispeech_words, normalised
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import _lines
from speechbrain_ee.exits.scoring import edit_counts
from speechbrain_ee.inference.recordings import read_spoken

# As somebody writes it, and as it is read.
WRITTEN = {
    "decomposed": ("cafe\u0301 man\u0303ana", "caf\u00e9 ma\u00f1ana"),
    "full width": ("\uff28\uff25\uff2c\uff2c\uff2f \uff11", "HELLO 1"),
    "soft hyphen": ("un\u00adbe\u00adkannt", "unbekannt"),
    "zero-width space": ("\u200bhel\u200blo", "hello"),
    "zero-width joiners": (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d",
        "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645 \u0915\u094d",
    ),
    "byte order mark": ("\ufeffhello", "hello"),
    "direction": ("\u200f\u202bab\u202c", "ab"),
    "no-break spaces": ("a\u00a0b\u202fc\u3000d\t e", "a b c d e"),
    "apostrophes": ("don\u2019t don\u02bct don\u00b4t", "don't don't don't"),
    "sharp s": ("stra\u00dfe \u1e9e", "stra\u00dfe \u1e9e"),
    "Turkish i": (
        "I\u0307stanbul \u0131l\u0131k",
        "\u0130stanbul \u0131l\u0131k",
    ),
    "Arabic forms": ("\ufeb3\ufefc\ufee1", "\u0633\u0644\u0627\u0645"),
    "Arabic accents": ("\u0627\u0655\u064e", "\u0625\u064e"),
    "Chinese": ("\u4f60\u597d\uf9e2", "\u4f60\u597d\u68a8"),
    "Thai am": ("\u0e19\u0e49\u0e33", "\u0e19\u0e49\u0e4d\u0e32"),
    "Hangul": ("\u1112\u1161\u11ab", "\ud55c"),
    "ligature": ("\ufb01n", "fin"),
    "no text": ("a\ufffdb\u2581c\x07", "a b c"),
}
TEXTS = ["un caf\u00e9 s'il", "le ni\u00f1o a \u0e19\u0e33", "fin d'ete"] * 3


def write_manifest(path: Path, texts: list[str]) -> str:
    """A manifest; all utterances have the same second of noise."""
    wav = path.parent / "noise.wav"
    noise = np.random.default_rng(0).normal(size=16000) / 10
    soundfile.write(wav, noise, 16000)
    rows = [[f"u{n}", 1.0, wav, "s", text] for n, text in enumerate(texts)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerows([["ID", "duration", "wav", "spk_id", "wrd"], *rows])
    return str(path)


def experiment(folder: Path, train: list[str], test: list[str]) -> dict:
    """The keys that tokenizer and data sets are made from."""
    folder.mkdir(exist_ok=True)
    return {
        "save_folder": str(folder / "save"),
        "data_folder": str(folder),
        "train_csv": write_manifest(folder / "train.csv", train),
        "valid_csv": write_manifest(folder / "dev.csv", train),
        "test_csv": write_manifest(folder / "test.csv", test),
        "output_neurons": 40,
        "token_type": "char",
        "sample_rate": 16000,
        "cache_audio": False,
    }


@pytest.mark.parametrize("kind", WRITTEN)
def test_text_that_reads_the_same_is_written_the_same(kind: str) -> None:
    written, read = WRITTEN[kind]
    for text in (written, read, unicodedata.normalize("NFD", written)):
        assert normalised(text) == read
    assert len(normalised(written).split()) == len(read.split())


def test_the_tokenizers_own_rule_has_nothing_left_to_change() -> None:
    rule = sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc",
        remove_extra_whitespaces=True,
        add_dummy_prefix=False,
        escape_whitespaces=False,
    )
    known = (chr(i) for i in range(sys.maxunicode + 1))
    letters = [
        c for c in known if unicodedata.category(c) not in ("Cn", "Cs", "Co")
    ]
    lines = [f"x{letter}y" for letter in letters]
    # ideographs and syllables by the ten thousand: every seventh will do
    for line in [*lines[:20000], *lines[20000::7]]:
        text = normalised(line)
        assert normalised(text) == rule.Normalize(text) == text, ascii(line)
        apart = unicodedata.normalize("NFD", line)
        assert normalised(apart) == text, ascii(line)


@pytest.mark.parametrize(
    ("kind", "size"), [("char", 40), ("bpe", 30), ("unigram", 20)]
)
def test_composed_and_decomposed_text_train_alike(kind, size, tmp_path):
    found = []
    forms = ("NFC", "NFD"), ("NFD", "NFC"), ("NFKD", "NFD")
    for train, test in forms:
        folder = tmp_path / (train + test)
        texts = [unicodedata.normalize(train, text) for text in TEXTS]
        others = [unicodedata.normalize(test, text) for text in TEXTS]
        hparams = experiment(folder, texts, others)
        hparams |= {"token_type": kind, "output_neurons": size}
        tokenizer = make_tokenizer(hparams)
        sets = make_datasets(hparams, tokenizer)
        sp, rows = tokenizer.sp, []
        for data in (sets.train, sets.tests["test"]):
            with data.output_keys_as(["wrd", "tokens"]):
                rows += [(r["wrd"], r["tokens"].tolist()) for r in data]
        pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
        found.append((pieces, rows))
    assert found[0] == found[1] == found[2]
    for ref, tokens in found[0][1]:
        assert sp.decode_ids(tokens) == ref and 0 not in tokens


def test_a_reference_is_what_its_tokens_decode_to(tmp_path, caplog):
    texts = [written for written, _ in WRITTEN.values()]
    hparams = experiment(tmp_path, texts, texts) | {"output_neurons": 99}
    tokenizer = make_tokenizer(hparams)
    with caplog.at_level(logging.WARNING):
        sets = make_datasets(hparams, tokenizer)
    for data in (sets.train, sets.valid, sets.tests["test"]):
        with data.output_keys_as(["wrd", "tokens"]):
            rows = list(data)
        refs = [row["wrd"] for row in rows]
        hyps = [tokenizer.sp.decode_ids(row["tokens"].tolist()) for row in rows]
        assert hyps == refs
        assert edit_counts(refs, hyps).sum() == 0
    changed = sum(written != read for written, read in WRITTEN.values())
    told = f"test.csv: {changed} of {len(WRITTEN)} transcripts were normalised"
    assert caplog.text.count(told) == 1


def test_a_tokenizer_with_another_rule_rewrites_the_references(tmp_path):
    hparams = experiment(tmp_path, ["ABC DE", "aBc"], ["CAB", "Ж cab"])
    (tmp_path / "save").mkdir()
    (tmp_path / "text").write_text("abc de\nabc\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "save/40_char"),
        model_type="char",
        normalization_rule_name="nmt_nfkc_cf",
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
    )
    sets = make_datasets(hparams, make_tokenizer(hparams))
    assert [row["wrd"] for row in sets.train.data.values()] == ["abc de", "abc"]
    refs = {row["wrd"] for row in sets.tests["test"].data.values()}
    assert refs == {"cab", "Ж cab"}


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (
            ["un nino", "le ete", "fin"],
            None,
        ),
        (
            ["UN NINO", "le fin", "FIN D'ETE"],
            "does not know D E F I N O T U; 2 of 3 transcripts .* other case "
            "of 8: write all transcripts in the same case",
        ),
        (
            ["un zwo\u0308lf", "le fin", "fin"],
            "does not know w z \u00f6; 1 of 3 transcripts",
        ),
    ],
)
def test_what_cannot_be_recognised_is_told_once(test, told, tmp_path, caplog):
    train = ["un nino le fin", "fin d'ete"]
    hparams = experiment(tmp_path, train, test)
    tokenizer = make_tokenizer(hparams)
    with caplog.at_level(logging.WARNING):
        sets = make_datasets(hparams, tokenizer)
    unknown = [r for r in caplog.messages if "does not know" in r]
    assert len(unknown) == (told is not None)
    if told is not None:
        assert "test.csv" in unknown[0]
        assert re.search(told, unknown[0])
    refs = [row["wrd"] for row in sets.tests["test"].data.values()]
    assert refs == [unicodedata.normalize("NFC", text) for text in test]


def test_transcripts_without_any_word_are_refused(tmp_path: Path) -> None:
    hparams = experiment(tmp_path, ["\u200b", ""], ["a"])
    with pytest.raises(InputError, match=r"train\.csv: all transcripts are"):
        make_tokenizer(hparams)
    hparams = experiment(tmp_path, ["a b", "b a"], ["a"])
    tokenizer = make_tokenizer(hparams)
    hparams["valid_csv"] = write_manifest(tmp_path / "dev.csv", ["", "\u00ad"])
    with pytest.raises(InputError, match=r"dev\.csv: all transcripts are"):
        make_datasets(hparams, tokenizer)


def test_what_is_recognised_apart_is_composed(tmp_path: Path) -> None:
    marked = "o\u0323\u0301 \u00f3"  # the first has no composed form
    tokenizer = make_tokenizer(experiment(tmp_path, [marked, "o"], ["o"]))
    letter, mark = map(tokenizer.sp.piece_to_id, "o\u0301")
    assert 0 not in (letter, mark)
    assert decode(tokenizer.sp, [letter, mark]) == "\u00f3"


def test_language_models_read_the_same_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(
        "cafe\u0301\n\u200b\n\n\ufeffdon\u2019t\n", encoding="utf-8"
    )
    assert _lines(path) == ["caf\u00e9", "don't"]


def test_corpora_that_are_rewritten_are_normalised_first() -> None:
    assert (
        librispeech_words("so\u00adfa \uff21\u200db don`t") == "SOFA AB DON'T"
    )
    assert librispeech_words("i\u0307 \u00df e\u0301") == "\u0130 SS \u00c9"


def test_ids_are_compared_composed(tmp_path: Path) -> None:
    folder = tmp_path / "dev/s/c"
    folder.mkdir(parents=True)
    for name in ("jose\u0301-1-0001", "jose\u0301-1-0002"):
        (folder / f"{name}.wav").write_bytes(b"")
    (folder / "s-c.trans.txt").write_text(
        "jos\u00e9-1-0001 hola\njos\u00e9-1-0002 \u200b\u00ad\n",
        encoding="utf-8",
    )
    split = read_split(tmp_path / "dev")
    assert [(one.utterance_id, one.reason) for one in split] == [
        ("jos\u00e9-1-0001", None),
        ("jos\u00e9-1-0002", "empty transcript"),
    ]


def test_bench_scores_what_the_tokenizer_can_write(tmp_path: Path) -> None:
    hparams = experiment(tmp_path, ["caf\u00e9"], ["cafe\u0301", ""])
    sp = make_tokenizer(hparams).sp
    spoken = read_spoken(hparams["test_csv"], 16000, tokenizer=sp)
    assert [one.ref for one in spoken] == ["caf\u00e9", ""]
