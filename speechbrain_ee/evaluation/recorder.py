"""Turn a model's outputs on a test set into the records of an exit trace.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence

from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.scoring import word_errors
from speechbrain_ee.exits.trace import ExitRecord, UtteranceRecord
from speechbrain_ee.models.heads import ExitOutput


class TraceRecorder:
    """Collect one record per utterance, batch by batch.

    Arguments
    ---------
    set_name : str
        Name of the test set.
    decode : callable
        Token indices of one utterance to its text.
    macs : callable, optional
        Samples of an utterance to its MACs up to and including every exit.
    sample_rate : int
        Samples per second.
    """

    def __init__(
        self,
        set_name: str,
        decode: Callable[[list[int]], str],
        macs: Callable[[int], Sequence[int]] | None = None,
        sample_rate: int = 16000,
    ):
        self.set_name = set_name
        self.decode = decode
        self.macs = macs
        self.sample_rate = sample_rate
        self.records: list[UtteranceRecord] = []

    def append(
        self,
        ids: Sequence[str],
        refs: Sequence[str],
        samples: Sequence[int],
        outputs: Sequence[ExitOutput],
    ) -> None:
        """Record a batch.

        Arguments
        ---------
        ids : sequence of str
            Utterances.
        refs : sequence of str
            Transcripts.
        samples : sequence of int
            Audio lengths in samples.
        outputs : sequence of ExitOutput
            All exits of the batch, in fp32.
        """
        hyps = [
            [self.decode(tokens) for tokens in greedy_tokens(output)]
            for output in outputs
        ]
        evidence, views = [], []
        for output in outputs:
            views.append(ExitView(output, views))
            measured = measure_all(views[-1])
            evidence.append({n: raw.tolist() for n, raw in measured.items()})
        for row, (id, ref, length) in enumerate(zip(ids, refs, samples)):
            macs = self.macs(length) if self.macs else [None] * len(outputs)
            exits = tuple(
                ExitRecord(
                    layer=output.layer,
                    hyp=hyps[k][row],
                    errors=word_errors(ref, hyps[k][row]).total,
                    evidence={n: v[row] for n, v in evidence[k].items()},
                    macs=macs[k],
                )
                for k, output in enumerate(outputs)
            )
            duration_s = length / self.sample_rate
            self.records.append(
                UtteranceRecord(id, self.set_name, ref, exits, duration_s)
            )
