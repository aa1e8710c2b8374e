"""From manifests to batches: tokens, order, dynamic batches, shards.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import itertools
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ee.data.batches import (
    ShardBatchSampler,
    make_datasets,
    train_loader_options,
)
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from speechbrain_ee.training.distributed import BatchShare

RATE = 16000
WORDS = "a cat sat on the mat and the dog ate it all up again today".split()
BATCHING = {
    "max_batch_length": 12.0,
    "num_buckets": 3,
    "shuffle": True,
    "batch_ordering": "random",
}
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
def hparams(tmp_path_factory):
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
        "dynamic_batching": {**BATCHING, "max_batch_length": 2.5},
    }


@pytest.fixture(scope="module")
def tokenizer(hparams):
    """Learnt once from the training transcripts."""
    return make_tokenizer(hparams)


@pytest.fixture(scope="module")
def datasets(hparams, tokenizer):
    """All sets."""
    return make_datasets(hparams, tokenizer)


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 24), ("unigram", 24), ("char", 18)]
)
def test_the_blank_is_in_no_training_transcript(kind, size, hparams, tmp_path):
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


def test_what_is_unknown_in_a_test_transcript_still_counts(datasets, tokenizer):
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


def test_a_tokenizer_of_other_transcripts_is_noticed(hparams, tmp_path):
    """Token 0 would else be the target wherever it does not know a letter."""
    own = dict(hparams, train_csv=str(tmp_path / "train.csv"))
    write_manifest(tmp_path / "train.csv", ["the cat sat", "zö"], [1.0, 0.5])
    make_tokenizer(hparams)
    with pytest.raises(InputError, match=r"does not know z ö;.*output_folder"):
        make_tokenizer(own)


def test_sets_have_their_names_and_order(hparams, datasets, tokenizer):
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


def test_a_manifest_need_not_name_speakers(hparams, tokenizer, tmp_path):
    path = tmp_path / "train.csv"
    with open(hparams["train_csv"], encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(row[:3] + row[4:] for row in rows)
    data = make_datasets({**hparams, "train_csv": str(path)}, tokenizer)
    item = data.train[3]
    assert set(item) == {"id", "sig", "wrd", "tokens"}
    assert set(data.valid[0]) == {*item, "spk_id"}
    assert item["sig"].shape == (round(1.3 * RATE),)
    assert item["tokens"].tolist() == tokenizer.sp.encode_as_ids(item["wrd"])


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
    longest_s, hparams, datasets
):
    """Padding included, in every epoch."""
    batching = dict(hparams["dynamic_batching"], max_batch_length=longest_s)
    own = dict(hparams, dynamic_batching=batching)
    sampler = train_loader_options(own, datasets.train)["batch_sampler"]
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert max(padded_lengths(sampler, datasets.train)) <= longest_s


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
def test_vocabularies_that_cannot_be(change, message, hparams, tmp_path):
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
    content, fault, hparams, tokenizer, tmp_path
):
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


# ---- Batches from shards: few at a time, any place to go on ----------------


def corpus(rows: int, shards: int, seed: int) -> tuple[list[str], list[float]]:
    """In which shard utterances are, and their seconds."""
    rng = np.random.default_rng(seed)
    names = [f"s{number}" for number in rng.integers(shards, size=rows)]
    return names, rng.uniform(1, 6, rows).tolist()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    shards=st.integers(1, 12),
    buffer=st.integers(1, 14),
    epoch=st.integers(0, 10**6),
    by_length=st.booleans(),
    processes=st.integers(1, 3),
)
def test_every_utterance_once_an_epoch(
    rows, shards, buffer, epoch, by_length, processes
):
    """Over all processes; and no more shards at a time than allowed."""
    names, lengths = corpus(rows, shards, rows)
    sampler = ShardBatchSampler(
        names,
        lengths,
        buffer,
        seed=1,
        batching=BATCHING if by_length else None,
        batch_size=3,
        shuffle=True,
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(chain(*batches)) == list(range(rows))
    if rows >= 3 * processes:
        parts = [
            list(BatchShare(sampler, rank, processes, even=True))
            for rank in range(processes)
        ]
        assert len({len(part) for part in parts}) == 1
        seen = sorted(row for part in parts for batch in part for row in batch)
        assert seen == list(range(rows))
    if by_length:
        for batch in batches:
            longest = max(lengths[row] for row in batch)
            assert len(batch) * longest <= BATCHING["max_batch_length"]

    # Shards come in groups: between the first and the last utterance of a
    # group there is none of another.
    order = [names[row] for row in chain(*batches)]
    seen_order = list(dict.fromkeys(order))
    groups = [
        set(seen_order[at : at + buffer])
        for at in range(0, len(seen_order), buffer)
    ]
    numbers = [next(n for n, g in enumerate(groups) if s in g) for s in order]
    assert numbers == sorted(numbers)


def test_without_shuffling_the_order_is_that_of_the_manifest():
    names = ["a", "b", "a", "b", "b"]
    plain = ShardBatchSampler(names, [1.0] * 5, 1, 0, batch_size=2)
    assert list(plain) == [[0, 2], [1, 3], [4]]
    fixed = {**BATCHING, "shuffle": False, "batch_ordering": "ascending"}
    sampler = ShardBatchSampler(names, [1.0] * 5, 1, 0, fixed)
    assert list(chain(*sampler)) == [0, 2, 1, 3, 4]
    cut = ShardBatchSampler(
        names, [1.0] * 5, 1, 0, batch_size=2, drop_last=True
    )
    assert list(cut) == [[0, 2], [1, 3]]


class Rows:
    """A data set whose items are their numbers."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> int:
        return row


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was(workers, tmp_path_factory):
    """As SpeechBrain's loader does it, whatever the number of workers."""
    sampler = ShardBatchSampler(*corpus(40, 6, 0), 2, 5, BATCHING)

    def loader() -> SaveableDataLoader:
        return SaveableDataLoader(
            Rows(), batch_sampler=sampler, num_workers=workers, collate_fn=list
        )

    sampler.set_epoch(3)
    whole = list(loader())
    assert whole == list(sampler)
    folder = tmp_path_factory.mktemp("save")
    stopped = loader()
    before = list(islice(iter(stopped), 4))
    Checkpointer(folder, {"loader": stopped}).save_checkpoint(
        end_of_epoch=False
    )
    resumed = loader()
    Checkpointer(folder, {"loader": resumed}).recover_if_possible()
    assert before + list(resumed) == whole


@pytest.fixture(params=["files", "shards"])
def loaded(request, hparams, datasets):
    """Options and training set, of whole files and of three shards."""
    if request.param == "files":
        return hparams, datasets.train
    rows = {
        name: {**row, "wav": f"/s/{n % 3}.tar?bytes=0+9"}
        for n, (name, row) in enumerate(datasets.train.data.items())
    }
    shards = {"train_shards": {"source": "/s", "buffer": 2}}
    return hparams | shards, DynamicItemDataset(rows)


def test_dynamic_batches_depend_on_seed_and_epoch_alone(loaded):
    """What a resumed run needs in order to see the same batches."""
    hparams, train = loaded

    def batches(seed: int, epoch: int) -> list[list[int]]:
        options = train_loader_options(dict(hparams, seed=seed), train)
        assert set(options) == {"num_workers", "batch_sampler"}
        list(options["batch_sampler"])  # another epoch, looked at before
        options["batch_sampler"].set_epoch(epoch)
        return list(options["batch_sampler"])

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


@pytest.mark.parametrize(
    "batching", [{"max_length": 3}, {"max_batch_length": 3}, "yes"]
)
def test_wrong_dynamic_batching_is_named(batching, loaded):
    hparams, train = loaded
    own = dict(hparams, dynamic_batching=batching)
    with pytest.raises(InputError, match=r"^dynamic_batching: .*num_buckets"):
        train_loader_options(own, train)


def test_batches_of_one_size_from_shards(loaded):
    hparams, train = loaded
    own = dict(hparams, dynamic_batching=None)
    options = train_loader_options(own, train)
    if "train_shards" not in hparams:
        assert options == hparams["train_dataloader_opts"]
        return
    batches = list(options["batch_sampler"])
    assert {len(batch) for batch in batches} == {4}
    assert sorted(itertools.chain(*batches)) == list(range(20))
