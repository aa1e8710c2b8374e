"""What masked prediction is worth on audio that was not learned.

Axes: B utterances, S samples, C codebooks, V codes, M masked frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from speechbrain_ee.training.pretraining import MaskedPrediction
from speechbrain_ee.training.seeding import kept_random_state, seed_step


@dataclass(frozen=True)
class HeldOut:
    """What masked prediction is worth on audio that was not learned.

    Arguments
    ---------
    loss : float
        Cross-entropy of the codes of masked frames, in nats.
    accuracy : float
        Share of codes that are predicted rightly.
    unigram_loss, majority_accuracy : float
        The same for who knows how frequent every code is, and nothing else.
    copy_accuracy : float
        For who repeats the code of the nearest frame that is seen.
    target_perplexity, prediction_perplexity : float
        Codes in use, among the targets and among the predictions.
    """

    loss: float
    accuracy: float
    unigram_loss: float
    majority_accuracy: float
    copy_accuracy: float
    target_perplexity: float
    prediction_perplexity: float

    def warnings(self, codes: int) -> list[str]:
        """What is wrong with these figures, a sentence each.

        Arguments
        ---------
        codes : int
            Codes of a codebook.

        Returns
        -------
        list of str
            Empty if nothing is.

        Example
        -------
        >>> HeldOut(5.0, 0.1, 5.2, 0.1, 0.2, 150.0, 1.5).warnings(512)
        ['predictions have collapsed to 1.5 codes: lower --lr ...']
        """
        found = []
        if self.target_perplexity < 0.02 * codes:
            found.append(
                f"targets use {self.target_perplexity:.1f} of {codes} codes: "
                "the audio may be silent or all alike"
            )
        if self.prediction_perplexity < 0.05 * self.target_perplexity:
            found.append(
                "predictions have collapsed to "
                f"{self.prediction_perplexity:.1f} codes: lower --lr or wait "
                "for the end of the warm-up"
            )
        return found


@torch.no_grad()
def measure(objective: MaskedPrediction, batches: Iterable[Tensor]) -> HeldOut:
    """Masked prediction on batches, with the same masks at every call.

    Arguments
    ---------
    objective : MaskedPrediction
        The model; left in the mode that it came in.
    batches : iterable of torch.Tensor
        Waveforms, shape (B, S) each.

    Returns
    -------
    HeldOut
        Means over frames and codebooks.
    """
    training = objective.training
    objective.eval()
    losses, facts = [], []
    with kept_random_state():
        for number, wavs_BS in enumerate(batches, start=1):
            seed_step(objective.options.seed, 0, number)
            _, found = objective(wavs_BS)
            loss = found.pop("masked_loss")
            losses.append(float(loss) * len(found["targets_MC"]))
            facts.append({name: each.cpu() for name, each in found.items()})
    objective.train(training)
    targets_MC, predicted_MC, copied_MC = (
        torch.cat([each[name] for each in facts])
        for name in ("targets_MC", "predicted_MC", "copied_MC")
    )
    shares_CV = _shares(targets_MC, objective.options.codes)
    entropy = _entropy(shares_CV)
    predicted_CV = _shares(predicted_MC, objective.options.codes)
    return HeldOut(
        loss=sum(losses) / len(targets_MC),
        accuracy=float((predicted_MC == targets_MC).float().mean()),
        unigram_loss=entropy,
        majority_accuracy=float(shares_CV.max(1).values.mean()),
        copy_accuracy=float((copied_MC == targets_MC).float().mean()),
        target_perplexity=math.exp(entropy),
        prediction_perplexity=math.exp(_entropy(predicted_CV)),
    )


def _shares(codes_MC: Tensor, codes: int) -> Tensor:
    """How often every code occurs, shape (C, V)."""
    counts = [torch.bincount(column, minlength=codes) for column in codes_MC.T]
    return torch.stack(counts) / len(codes_MC)


def _entropy(shares_CV: Tensor) -> float:
    """In nats, mean over codebooks."""
    return float(torch.special.entr(shares_CV).sum(1).mean())
