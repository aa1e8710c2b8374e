"""Graphs say what PyTorch says, and their host decides what the runner decides.

Axes: B utterances, T frames, V vocabulary entries, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

# ruff: noqa: E402 - the extra comes before what needs it
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from sentencepiece import SentencePieceProcessor
from speechbrain.nnet.attention import PrecomputedRoPESinusoids

from speechbrain_ee.data.words import pieces_of
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    write_policy,
)
from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy
from speechbrain_ee.inference.onnx.export import (
    MEASURES,
    RotaryTables,
    StartGraph,
    export_graphs,
    export_onnx,
    export_static,
    manifest,
    tokens,
)
from speechbrain_ee.inference.onnx.host import (
    MANIFEST_FILE,
    OnnxRecogniser,
    read_manifest,
    write_manifest,
)
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.runner import LiveRunner
from tests.helpers import (
    SAMPLE_RATE,
    VOCAB,
    noise,
    padded,
    shaken,
    tiny_model,
)
from tests.inference.live_runs import EXITS, LENGTHS, live_model, waves
from tests.inference.runs import write_tokenizer
from tests.test_packaging import IMPORT_NAMES, import_names, requirements

# One of each way that positions reach the layers, and a head that attends.
KINDS = {
    "rotary": {"attention_type": "RoPEMHA"},
    "relative": {"attention_type": "RelPosMHAXL"},
    "absolute": {"attention_type": "regularMHA"},
}
BATCHES = ((16000,), (5000, 12000, 701), (4000, 16000, 9000), (90000, 3), (1,))
PARITY = 1e-4
SHIPPED = {
    "half": ExitPolicy("entropy", EXITS, -0.2, "wer=+5%", "naive"),
    "spelling": ExitPolicy("plausibility", EXITS, -3.0, "wer=+5%", "naive"),
    "learned": ExitPolicy("learned", EXITS, 0.0, "wer=+5%", "naive"),
}
TEXTS = ["abc cab", "bad dab", "acid"]
WITHOUT_TORCH = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
import numpy as np
from speechbrain_ee.inference.onnx.host import OnnxRecogniser
rng = np.random.default_rng(0)
waves = [0.1 * rng.standard_normal(n) for n in (9000, 4000)]
host = OnnxRecogniser(sys.argv[1])
for policy in (None, 2, "last", "half", "spelling"):
    print([(one.exit, one.text) for one in host.transcribe(waves, policy)])
for refused in ("macs=60%", "learned:0"):
    try:
        host.resolve(refused)
    except ValueError as error:
        assert str(error).startswith("policy: "), error
    else:
        raise AssertionError(refused)
assert not any(name == "torch" or name.startswith("torch.")
               for name, module in sys.modules.items() if module is not None)
"""


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A model and its graphs."""
    model = shaken(tiny_model(**KINDS[request.param]), by=0.1)
    given = list(model.state_dict())
    folder = tmp_path_factory.mktemp(request.param)
    export_graphs(model, folder)
    names = ("start.onnx", "exit_01.onnx", "exit_02.onnx")
    sessions = [onnxruntime.InferenceSession(folder / name) for name in names]
    return SimpleNamespace(
        model=model, names=given, folder=folder, sessions=sessions
    )


def through(sessions, lengths):
    """Frames, and what every exit puts out by name, as a host sees it."""
    wavs_BS, _ = padded([noise(n, seed=n) for n in lengths])
    start, *segments = sessions
    inputs = {"wavs": wavs_BS.numpy(), "samples": np.array(lengths)}
    hidden, frames_B, *positions = start.run(None, inputs)
    found = []
    for segment in segments:
        inputs = {"hidden": hidden, "lengths": frames_B}
        inputs |= dict(zip(["positions"], positions))
        names = [each.name for each in segment.get_outputs()]
        found.append(dict(zip(names, segment.run(None, inputs))))
        hidden = found[-1]["out"]
    return frames_B, found


@pytest.mark.parametrize("lengths", BATCHES)
def test_log_probabilities_and_measures_are_those_of_pytorch(made, lengths):
    """In a batch and alone; exporting has left the model as it was."""
    wavs, lens = padded([noise(n, seed=n) for n in lengths])
    with torch.no_grad():
        outputs = made.model(wavs, lens)
    assert list(made.model.state_dict()) == made.names
    frames_B, found = through(made.sessions, lengths)
    alone = [through(made.sessions, (length,))[1] for length in lengths]
    for exit, (output, said) in enumerate(zip(outputs, found)):
        assert frames_B.tolist() == output.lengths_B.tolist()
        for row, frames in enumerate(frames_B):
            wanted_TV = output.log_probs_BTV[row, :frames]
            for got_TV in (
                said["log_probs"][row],
                alone[row][exit]["log_probs"][0],
            ):
                np.testing.assert_allclose(
                    got_TV[:frames], wanted_TV, atol=PARITY
                )
        for name, raw in measure_all(ExitView(output), MEASURES).items():
            np.testing.assert_allclose(said[name], raw, atol=PARITY)
    graph = onnx.load(made.folder / "exit_01.onnx")
    assert graph.producer_name == "speechbrain-ee"
    assert str(Path.cwd()) not in str(graph)  # no path of the machine


@pytest.mark.parametrize("frames", (1, 2, 64, 3000))
def test_tables_are_those_of_speechbrain(frames):
    wanted = PrecomputedRoPESinusoids(
        frames, 8, torch.float32, torch.device("cpu")
    )
    cosines, sines = RotaryTables(8)(frames)
    torch.testing.assert_close(cosines, wanted.cosines)
    torch.testing.assert_close(sines, wanted.sines)


def test_manifest_tells_the_costs_and_is_checked(tmp_path):
    model = tiny_model(attention_type="RoPEMHA")
    told = manifest(model, "tiny", 16000)
    write_manifest(tmp_path, told)
    assert read_manifest(tmp_path) == told
    cost = CostModel(model)
    for samples in (0, 1, 159, 160, 799, 16000, 54321, 700_000):
        frames = cost.frames(samples)
        for exit, macs in enumerate(cost.macs(samples), start=1):
            reads = tuple(range(1, exit + 1))
            assert told.macs(samples, frames, reads) == macs
    path = tmp_path / MANIFEST_FILE
    text = path.read_text("utf-8")
    for old, new in (
        ('"positions": "rotary"', '"positions": "none of these"'),
        ('"blank_index": 0', '"blank_index": 99'),
        ('"frame_s"', '"frames"'),
        ("early-exit-onnx/1", "early-exit-onnx/9"),
        ('"sample_rate": 16000', '"sample_rate": "16000"'),
        ("{", "{{"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(InputError, match=MANIFEST_FILE):
            read_manifest(tmp_path)


def test_other_encoders_are_refused():
    other = SimpleNamespace(encoder=torch.nn.Identity())
    with pytest.raises(InputError, match="Identity"):
        StartGraph(other)


@pytest.mark.parametrize("missing", ("onnx", "onnxruntime"))
def test_without_the_extra_it_says_so(tmp_path, monkeypatch, missing):
    """Before anything is looked at or written."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"speechbrain-ee\[onnx\]"):
        export_onnx(None, tmp_path / "graphs")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module", params=("RoPEMHA", "RelPosMHAXL"))
def hosted(request, tmp_path_factory):
    """A model folder, its graphs, and both loops over them."""
    model = live_model(attention_type=request.param)
    place = tmp_path_factory.mktemp("hosted")
    graphs = place / "graphs"
    tokenizer = SentencePieceProcessor(
        model_file=str(write_tokenizer(place / "letters.model"))
    )
    selector = SimpleNamespace(language_model=CharNgram.train(TEXTS))
    folder = SimpleNamespace(
        model=model,
        selector=selector,
        name="tiny",
        sample_rate=SAMPLE_RATE,
        tokenizer=tokenizer,
        decoding="ctc_greedy",
        policies=SHIPPED,
        default_policy="half",
    )
    export_onnx(folder, graphs)
    pieces = pieces_of(tokenizer)  # as EarlyExitASR has them
    runner = LiveRunner(model, pieces, tokenizer.decode_ids, SAMPLE_RATE)
    return SimpleNamespace(
        folder=folder,
        graphs=graphs,
        runner=runner,
        host=OnnxRecogniser(graphs),
        policies=Policies(model.exit_layers, SHIPPED, selector=selector),
    )


def middling(hosted, criterion: str) -> float:
    """A threshold at which some stop early and some do not."""
    first = ThresholdPolicy(criterion, -1e9, len(EXITS))
    found = hosted.host.transcribe([w.numpy() for w in waves()], first)
    scores = sorted(each.score for each in found)
    return (scores[2] + scores[3]) / 2


@pytest.mark.parametrize(
    "criterion", ("entropy", "max_prob", "margin_nonblank", "entropy_nonblank")
)
def test_decisions_are_those_of_the_live_runner(hosted, criterion):
    policy = ThresholdPolicy(criterion, middling(hosted, criterion), len(EXITS))
    assert len(agree(hosted, policy)) > 1


@pytest.mark.parametrize(
    "policy",
    (
        *(FixedExit(1), FixedExit(3)),
        ThresholdPolicy("agreement", -0.5, len(EXITS)),
        ThresholdPolicy("patience_transcript:patience=1", -0.3, len(EXITS)),
        ThresholdPolicy("max_prob", (np.inf, 0.0, np.inf), len(EXITS)),
        ThresholdPolicy("unseen_words", -0.9, len(EXITS)),
        ThresholdPolicy("plausibility", -4.0, len(EXITS)),
        ExitPolicy("entropy", (EXITS[1], EXITS[3]), -0.5, "x", "naive"),
    ),
    ids=str,
)
def test_so_do_other_policies(hosted, policy):
    agree(hosted, policy)


def agree(hosted, policy) -> set[int]:
    """Both loops say the same, in a batch and alone; the exits taken."""
    audio = waves(LENGTHS)
    live = hosted.policies.resolve(policy)
    wanted = hosted.runner.run(*padded(audio), live)
    arrays = [wav.numpy() for wav in audio]
    found = hosted.host.transcribe(arrays, policy)
    alone = [hosted.host.transcribe([one], policy)[0] for one in arrays]
    same_call = hosted.host.run(*padded(audio), live)
    for one, *others in zip(wanted, found, alone, same_call):
        for other in others:
            for name in ("exit", "layer", "tokens", "text", "macs"):
                assert getattr(other, name) == getattr(one, name)
            np.testing.assert_allclose(other.score, one.score, atol=1e-4)
            assert other.confidence == pytest.approx(one.confidence, abs=1e-4)
            assert other.duration_s == pytest.approx(one.duration_s)
            times = [(w.text, w.start_s, w.end_s) for w in other.words]
            assert times == [(w.text, w.start_s, w.end_s) for w in one.words]
    return {one.exit for one in wanted}


def test_nothing_above_the_exit_is_computed(hosted):
    host = OnnxRecogniser(hosted.graphs)
    ran = []

    class Counted:
        def __init__(self, exit, session):
            self.exit, self.session = exit, session

        def run(self, wanted, inputs, *rest):
            ran.append((self.exit, *inputs["hidden"].shape[:2]))
            return self.session.run(wanted, inputs, *rest)

    host.segments = [Counted(k, s) for k, s in enumerate(host.segments, 1)]
    audio = [wav.numpy() for wav in waves()]
    threshold = middling(hosted, "entropy")
    found = host.transcribe(
        audio, ThresholdPolicy("entropy", threshold, len(EXITS))
    )
    for exit, rows, frames in ran:
        still = [n for n, one in enumerate(found) if one.exit >= exit]
        assert rows == len(still)
        longest = max(len(audio[n]) for n in still)
        assert frames == -(-(longest // 160 + 1) // 4)
    assert max(exit for exit, *_ in ran) == max(one.exit for one in found)


def test_policies_by_name_and_by_file(hosted, tmp_path):
    host = hosted.host
    assert host.resolve().rule == SHIPPED["half"].policy
    write_policy(tmp_path / "own.yaml", SHIPPED["half"])
    own = host.resolve(tmp_path / "own.yaml")
    assert own.rule == host.resolve("half").rule
    assert host.resolve("last").exits == (4,)
    for wrong in ("nobody", 0, 5, SHIPPED["learned"]):
        with pytest.raises(InputError, match="policy"):
            host.resolve(wrong)
    # What graphs cannot follow is not shipped with them.
    assert set(host.policies.shipped) == {"half", "spelling"}
    with pytest.raises(InputError, match="onnx.json"):
        OnnxRecogniser(tmp_path)
    with pytest.raises(InputError, match="fp16"):
        OnnxRecogniser(hosted.graphs, precision="fp16")


def test_it_runs_without_torch(hosted, repository):
    """On the packages that docs/deploying.md says, and no other of ours."""
    page = (repository / "docs" / "deploying.md").read_text("utf-8")
    (line,) = re.findall(r"(?m)^pip install (numpy .*)$", page)
    stated = {IMPORT_NAMES.get(name, name) for name in line.split()}
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    needed = requirements(setup["options"]["install_requires"])
    denied = import_names([*needed, "onnx"]) - stated
    assert {"torch", "speechbrain", "scipy"} < denied
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(hosted.graphs), *denied],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    audio = [0.1 * rng.standard_normal(n) for n in (9000, 4000)]
    heard = [
        hosted.host.transcribe(audio, policy)
        for policy in (None, 2, "last", "half", "spelling")
    ]
    lines = [str([(one.exit, one.text) for one in row]) for row in heard]
    assert done.stdout.splitlines() == lines


def test_samples_silence_and_int8(hosted):
    silent = np.zeros(8000, dtype=np.float32)
    found = hosted.host.transcribe([silent, silent[:1], silent[:0]], "last")
    assert [one.duration_s for one in found] == [0.5, 1 / SAMPLE_RATE, 0.0]
    assert hosted.host.transcribe([], "last") == []
    pcm = (waves()[0].numpy() * 32767).round().astype(np.int16)
    one = hosted.host.transcribe(pcm, 2)
    (same,) = hosted.host.transcribe([pcm.astype(np.float32) / 32768], 2)
    assert one.tokens == same.tokens and one.exit == 2
    for wrong, said in (
        (np.array([0.1, np.nan], np.float32), r"waves\[0\]: .*not finite"),
        ([pcm, np.zeros((2, 9), np.float32)], r"waves\[1\]: .*shape \(2, 9\)"),
    ):
        with pytest.raises(InputError, match=said):
            hosted.host.transcribe(wrong)
    host = OnnxRecogniser(hosted.graphs, precision="int8")
    audio = [wav.numpy() for wav in waves()]
    exact = hosted.host.transcribe(audio, 2)
    for one, other in zip(host.transcribe(audio, 2), exact, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=0.1)
        assert one.macs == other.macs


def test_one_graph_for_one_exit(hosted, tmp_path):
    folder = export_static(hosted.folder, tmp_path / "static", exit=3)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["x"]
    told = session.get_modelmeta().custom_metadata_map
    assert told["model_type"] == "omnilingual-asr"
    assert told["vocab_size"] == str(VOCAB)
    assert told["subsampling_factor"] == "4"
    for wav in waves((16000, 3000)):
        with torch.no_grad():
            wanted = hosted.folder.model(*padded([wav]))[2].log_probs_BTV
        for scale in (1.0, 12.0):  # sherpa-onnx scales the samples
            (got,) = session.run(None, {"x": scale * wav[None].numpy()})
            np.testing.assert_allclose(got, wanted, atol=1e-3)
    whole = onnx.load(folder / "model.int8.onnx").graph.node
    exact = [node.name for node in whole if node.op_type == "MatMul"]
    # Features span eight decades: they stay as they are.
    assert [n for n in exact if "compute_STFT" in n]
    assert any("Integer" in n.op_type or "Quantize" in n.op_type for n in whole)
    lines = (folder / "tokens.txt").read_text("utf-8").splitlines()
    assert lines == tokens(hosted.folder).splitlines()
    assert lines[0] == "<blk> 0" and len(lines) == VOCAB
    assert lines[2] == f"{hosted.folder.tokenizer.id_to_piece(2)} 2"
