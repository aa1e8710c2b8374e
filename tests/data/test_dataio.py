"""From manifests to batches: tokens, order, dynamic batches, bad manifests.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ee.data.batches import make_datasets, train_loader_options
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError

RATE = 16000
WORDS = "a cat sat on the mat and the dog ate it all up again today".split()
COLUMNS = ["ID", "duration", "wav", "spk_id", "wrd"]


def transcripts(number: int, seed: int) -> list[str]:
    """Random sentences from a small vocabulary."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 4)) for _ in range(number)]


def write_manifest(path: Path, texts: list[str], durations: list[float]):
    """A manifest with audio beside it, in no particular order of length."""
    rows = []
    for index, (text, duration_s) in enumerate(
        zip(texts, durations, strict=True)
    ):
        name = f"{path.stem}-{index:02d}"
        wav = path.parent / f"{name}.wav"
        if not wav.exists():
            noise = np.random.default_rng(index).normal(size=RATE) / 10
            wave = np.resize(noise, round(duration_s * RATE))
            soundfile.write(wav, wave, RATE, "PCM_16")
        rows.append([name, duration_s, wav, "s", text])
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


@pytest.fixture(scope="module")
def hparams(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The keys that the functions under test read; not to be changed."""
    folder = tmp_path_factory.mktemp("manifests")
    durations = [0.5, 0.9, 0.3, 1.3, 0.7]
    write_manifest(folder / "train.csv", transcripts(20, 1), durations * 4)
    write_manifest(folder / "dev.csv", transcripts(5, 2), durations)
    write_manifest(
        folder / "test-one.csv",
        ["a Ж cat", "the zebra", *transcripts(3, 3)],
        durations,
    )
    write_manifest(folder / "other.csv", transcripts(5, 4), durations)
    return {
        "save_folder": str(folder / "save"),
        "data_folder": str(folder),
        "train_csv": str(folder / "train.csv"),
        "valid_csv": str(folder / "dev.csv"),
        "test_csv": [str(folder / "test-one.csv"), str(folder / "other.csv")],
        "output_neurons": 24,
        "token_type": "bpe",
        "sample_rate": RATE,
        "cache_audio": False,
        "seed": 7,
        "train_dataloader_opts": {
            "num_workers": 0,
            "batch_size": 4,
            "shuffle": True,
            "drop_last": True,
        },
        "dynamic_batching": {
            "max_batch_length": 2.5,
            "num_buckets": 4,
            "shuffle": True,
            "batch_ordering": "random",
        },
    }


@pytest.fixture(scope="module")
def tokenizer(hparams: dict):
    """Learnt once from the training transcripts."""
    return make_tokenizer(hparams)


@pytest.fixture(scope="module")
def datasets(hparams: dict, tokenizer):
    """All sets."""
    return make_datasets(hparams, tokenizer)


@pytest.mark.parametrize("number_of_words", range(13))
def test_tokens_decode_to_the_words_they_came_from(
    number_of_words: int, tokenizer
) -> None:
    rng = np.random.default_rng(number_of_words)
    text = " ".join(rng.choice(WORDS, number_of_words))
    assert tokenizer.sp.decode_ids(tokenizer.sp.encode_as_ids(text)) == text


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 24), ("unigram", 24), ("char", 18)]
)
def test_the_blank_is_in_no_training_transcript(
    kind: str, size: int, hparams: dict, tmp_path: Path
) -> None:
    """CTC cannot align a target that holds its blank, token 0."""
    own = dict(hparams, token_type=kind, output_neurons=size)
    own["save_folder"] = str(tmp_path)
    learnt = make_tokenizer(own)
    assert (tmp_path / f"{size}_{kind}.model").is_file()
    train = make_datasets(own, learnt).train
    with train.output_keys_as(["wrd", "tokens"]):
        for row in train:
            tokens = row["tokens"]
            assert len(tokens) and 0 < tokens.min() <= tokens.max() < size
            assert learnt.sp.decode_ids(tokens.tolist()) == row["wrd"]


def test_what_is_unknown_in_a_test_transcript_still_counts(
    datasets, tokenizer
) -> None:
    """The reference keeps its words, whatever the tokens make of them."""
    with datasets.tests["test-one"].output_keys_as(["wrd", "tokens"]):
        rows = {
            row["wrd"]: row["tokens"].tolist()
            for row in datasets.tests["test-one"]
        }
    assert "a Ж cat" in rows and "the zebra" in rows
    assert rows["a Ж cat"].count(tokenizer.sp.unk_id()) == 1
    assert tokenizer.sp.unk_id() == 0
    assert 0 in rows["the zebra"]
    assert tokenizer.sp.decode_ids(rows["a Ж cat"]) != "a Ж cat"


def test_a_tokenizer_of_other_transcripts_is_noticed(
    hparams: dict, tmp_path: Path
) -> None:
    """Token 0 would else be the target wherever it does not know a letter."""
    own = dict(hparams, train_csv=str(tmp_path / "train.csv"))
    write_manifest(tmp_path / "train.csv", ["the cat sat", "zö"], [1.0, 0.5])
    make_tokenizer(hparams)
    with pytest.raises(InputError, match=r"does not know z ö;.*output_folder"):
        make_tokenizer(own)


def test_sets_have_their_names_and_order(
    hparams: dict, datasets, tokenizer
) -> None:
    """Tests by file name and longest first; training as the manifest."""
    assert list(datasets.tests) == ["test-one", "other"]
    for dataset in (datasets.valid, *datasets.tests.values()):
        with dataset.output_keys_as(["duration"]):
            lengths = [row["duration"] for row in dataset]
        assert lengths == [1.3, 0.9, 0.7, 0.5, 0.3]
    with datasets.train.output_keys_as(["id"]):
        ids = [row["id"] for row in datasets.train]
    assert ids == sorted(ids) and len(ids) == 20
    single = dict(hparams, test_csv=hparams["test_csv"][1])
    assert list(make_datasets(single, tokenizer).tests) == ["other"]


def test_an_item_holds_audio_words_and_tokens(datasets, tokenizer) -> None:
    item = datasets.train[3]
    assert set(item) == {"id", "sig", "wrd", "tokens", "spk_id"}
    assert item["spk_id"] == "s"
    assert item["sig"].shape == (round(1.3 * RATE),)
    assert item["tokens"].tolist() == tokenizer.sp.encode_as_ids(item["wrd"])


def test_a_manifest_need_not_name_speakers(hparams, tokenizer, tmp_path):
    path = tmp_path / "train.csv"
    with open(hparams["train_csv"], encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(row[:3] + row[4:] for row in rows)
    data = make_datasets({**hparams, "train_csv": str(path)}, tokenizer)
    assert set(data.train[0]) == {"id", "sig", "wrd", "tokens"}
    assert "spk_id" in data.valid[0]


def padded_lengths(sampler, dataset: DynamicItemDataset) -> list[float]:
    """Seconds of every batch with its padding; and every row exactly once."""
    batches = list(sampler)
    rows = sorted(itertools.chain.from_iterable(batches))
    assert rows == list(range(len(dataset)))
    seconds = [
        float(dataset.data[name]["duration"]) for name in dataset.data_ids
    ]
    return [
        len(batch) * max(seconds[row] for row in batch) for batch in batches
    ]


@pytest.mark.parametrize("longest_s", [1.3, 2.0, 2.5, 5.0, 26.0])
def test_dynamic_batches_hold_at_most_their_length(
    longest_s: float, hparams: dict, datasets
) -> None:
    """Padding included, in every epoch."""
    batching = dict(hparams["dynamic_batching"], max_batch_length=longest_s)
    own = dict(hparams, dynamic_batching=batching)
    sampler = train_loader_options(own, datasets.train)["batch_sampler"]
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert max(padded_lengths(sampler, datasets.train)) <= longest_s


def test_dynamic_batches_depend_on_seed_and_epoch_alone(
    hparams: dict, datasets
) -> None:
    """What a resumed run needs in order to see the same batches."""

    def batches(seed: int, epoch: int) -> list[list[int]]:
        own = dict(hparams, seed=seed)
        sampler = train_loader_options(own, datasets.train)["batch_sampler"]
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_loader_options_in_both_modes(hparams: dict, datasets) -> None:
    """A batch sampler excludes batch_size, shuffle and drop_last."""
    options = train_loader_options(hparams, datasets.train)
    assert set(options) == {"num_workers", "batch_sampler"}
    given = hparams["train_dataloader_opts"]
    assert "batch_size" in given, "the YAML's own must stay as they are"
    plain = dict(hparams, dynamic_batching=None)
    options = train_loader_options(plain, datasets.train)
    assert options == given and options is not given


@pytest.mark.parametrize(
    "batching", [{"max_length": 3}, {"max_batch_length": 3}, "yes"]
)
def test_wrong_dynamic_batching_is_named(
    batching: object, hparams: dict, datasets
) -> None:
    own = dict(hparams, dynamic_batching=batching)
    with pytest.raises(InputError, match=r"^dynamic_batching: .*num_buckets"):
        train_loader_options(own, datasets.train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_neurons": 3}, r"^output_neurons: 3 bpe .* another number"),
        ({"output_neurons": 900}, r"^output_neurons: 900 bpe .*train\.csv"),
        (
            {"output_neurons": 900, "token_type": "unigram"},
            r"^output_neurons: 900 unigram .*train\.csv",
        ),
        (
            {"output_neurons": 5, "token_type": "char"},
            r"^output_neurons: 5, but .* set output_neurons to 1\d",
        ),
        ({"output_neurons": "many"}, r"^output_neurons: many bpe"),
        ({"token_type": "words"}, r"^token_type: 'words'.*bpe, unigram, char"),
        ({"train_csv": "no.csv"}, r"^no\.csv: .* --skip_prep"),
    ],
)
def test_vocabularies_that_cannot_be(
    change: dict, message: str, hparams: dict, tmp_path: Path
) -> None:
    own = dict(hparams, save_folder=str(tmp_path), **change)
    with pytest.raises(InputError, match=message) as error:
        make_tokenizer(own)
    assert "\n" not in str(error.value)


ROW = "u1,1.0,u1.wav,s,a cat\n"
HEADER = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "this manifest does not exist"),
        ("", "the column ID and duration and wav and wrd is missing"),
        ("ID,duration,wav,spk_id\nu1,1.0,u1.wav,s\n", "the column wrd is"),
        ("name,duration,wav,wrd\nu1,1.0,u1.wav,a\n", "the column ID is"),
        (HEADER, "it has no utterance"),
        (HEADER + ROW + "u2,1.0,u2.wav\n", "line 3 has not as many cells"),
        (HEADER + ROW.replace("cat", "cat,too"), "line 2 has not as many"),
        (HEADER + ROW + ROW, "line 3 repeats the ID 'u1'"),
        (HEADER + ROW.replace("1.0", "long"), "line 2 has the duration 'long'"),
        (HEADER + ROW.replace("1.0", "0"), "line 2 has the duration '0'"),
        (HEADER + ROW.replace("1.0", "nan"), "line 2 has the duration 'nan'"),
        (b"\xff\xfe" + HEADER.encode(), "cannot be read"),
    ],
)
def test_broken_manifests_are_named(
    content: str | bytes | None,
    fault: str,
    hparams: dict,
    tokenizer,
    tmp_path: Path,
) -> None:
    """Wherever the manifest is used, also to learn the tokenizer."""
    path = tmp_path / "mine.csv"
    if content is not None:
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(raw)
    for key in ("train_csv", "valid_csv", "test_csv"):
        value = [str(path)] if key == "test_csv" else str(path)
        own = dict(hparams, **{key: value})
        with pytest.raises(InputError) as error:
            make_datasets(own, tokenizer)
        assert str(error.value).startswith(f"{path}: {fault}")
        assert "--skip_prep=True" in str(error.value)
    with pytest.raises(InputError) as error:
        make_tokenizer(dict(hparams, train_csv=str(path)))
    assert str(error.value).startswith(f"{path}: {fault}")
