"""Distillation from the scores of teachers (Primus and Widmer 2024, arXiv 2408.11641, eqs. 2 to 4).

With the student's logits ``l_ij = score(row i, column j) / tau`` and the mean ``t_ij`` of the teachers' scores,

    L = 1/2 mean over rows    of - sum over j of softmax_j(t_ij / tau_teacher) log softmax_j(l_ij)
      + 1/2 mean over columns of - sum over i of softmax_i(t_ij / tau_teacher) log softmax_i(l_ij)

The teachers' scores are averaged before the softmax.  Every pair of the global batch takes part: the teachers say how
near the other pairs are, so none is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.objectives.pairs.base import SideName, Statistics, TemperedLoss, Tile, check_temperature


@dataclass(frozen=True)
class Settings:
    """Settings of distillation.

    Attributes:
        name: the key of the registry.
        tau: the student's temperature (Calvet and Toledano 2025, section 3.3: 0.05).
        trainable_tau: learn it, between 0.01 and 1.
        teacher_tau: the temperature of the teachers' averaged scores.
    """

    name: str = "distillation"
    tau: float = 0.05
    trainable_tau: bool = False
    teacher_tau: float = 0.05

    def __post_init__(self) -> None:
        check_temperature(self.tau, self.trainable_tau)
        check_temperature(self.teacher_tau, False)


class Distillation(TemperedLoss):
    """The cross-entropy of the student's softmax over each row and each column, under the teacher's."""

    leaves_out = False
    needs_teacher = True
    of_rows = of_columns = {  # noqa: RUF012
        "lse": "logsumexp",
        "teacher": "logsumexp",
        "agreement": "mean by teacher",  # the student's mean logit under the teacher's softmax
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.tau, settings.trainable_tau)
        self.teacher_tau = settings.teacher_tau

    def observe(self, tile: Tile) -> tuple[Statistics, Statistics]:
        assert tile.teacher is not None, "global_loss has checked it"
        logits, teacher = tile.logits, tile.teacher.to(tile.logits) / self.teacher_tau
        found = []
        for axis in (1, 0):
            agreement = (teacher.softmax(axis) * logits).sum(axis)
            found.append(
                {"lse": logits.logsumexp(axis), "teacher": teacher.logsumexp(axis), "agreement": agreement},
            )
        return found[0], found[1]

    def terms(self, statistics: Statistics, side: SideName) -> tuple[Tensor, Tensor]:
        terms = (statistics["lse"] - statistics["agreement"]) / 2
        return terms, terms.new_ones(terms.shape)


def build(settings: Settings) -> Distillation:
    """The loss that ``settings`` describes."""
    return Distillation(settings)
