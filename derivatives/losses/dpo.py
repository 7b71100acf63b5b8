"""Direct preference optimization: how much more a policy prefers the chosen completion than a reference does.

With log-probabilities of whole completions, the margin of a pair is

    h = (log pi(chosen) - log pi(rejected)) - (log ref(chosen) - log ref(rejected))

- `sigmoid` (DPO, arXiv:2305.18290, equation 7): -log sigmoid(beta h). With label smoothing e, which says that a share
  e of the pairs is the wrong way round: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h) (cDPO, Mitchell 2023).
- `ipo` (arXiv:2310.12036, equation 17, beta for its tau): (h - 1 / (2 beta))^2.

To either a stage may add the cross-entropy of the chosen completion per token, times `nll_weight`: iterative RPO
(arXiv:2404.19733, equation 2, weight 1), Llama 3 (arXiv:2407.21783, section 4.1.4, weight 0.2).

Departure: none in the formulas; RPO's term there counts the tokens of thought and answer, which are one text here.
Log-probabilities may be divided by length before (Tulu 3's length-normalised DPO, arXiv:2411.15124, section 5.1.2), for
policy and reference alike; TRL does so for ipo always, the paper does not.

Shape letter: P pairs.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["sigmoid", "ipo"]


def margins(policy_P2: Tensor, reference_P2: Tensor) -> Tensor:
    """h of each pair [P], of log-probabilities [P, 2] of chosen and rejected."""
    gained_P2 = policy_P2 - reference_P2
    return gained_P2[:, 0] - gained_P2[:, 1]


def losses(margins_P: Tensor, kind: Kind, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """The loss of each pair [P].

    Args:
        margins_P: From `margins`, in nats.
        kind: `sigmoid` or `ipo`.
        beta: Strength of the pull to the reference, per nat.
        label_smoothing: Share of pairs taken to be the wrong way round, 0 to 0.5; `sigmoid` only.
    """
    if kind == "ipo":
        return torch.square(margins_P - 1.0 / (2.0 * beta))
    right_P, wrong_P = F.logsigmoid(beta * margins_P), F.logsigmoid(-beta * margins_P)
    return -(1.0 - label_smoothing) * right_P - label_smoothing * wrong_P
