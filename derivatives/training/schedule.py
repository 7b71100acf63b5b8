"""Learning rate by step: linear warm-up from 0, then cosine, warm-up-stable-decay, or constant.

Sources: cosine (arXiv:1608.03983); warm-up-stable-decay (arXiv:2404.06395).
"""

from __future__ import annotations

import math

from configs.settings.training import Optimization

WSD_DECAY = 0.2
"""Share of the steps over which wsd decays linearly to its floor."""


def learning_rate(config: Optimization, step: int, total: int) -> float:
    """Learning rate of step `step` of `total`, counted from 1.

    Warm-up ends at the peak; a decay ends, at step `total`, at `min_lr_fraction` of the peak.
    """
    peak, floor = config.learning_rate, config.learning_rate * config.min_lr_fraction
    num_warmup = math.ceil(config.warmup_fraction * total)
    if step <= num_warmup:
        return peak * step / num_warmup
    if config.schedule == "constant":
        return peak
    num_decay = total - num_warmup
    if config.schedule == "wsd":
        num_decay = min(num_decay, math.ceil(WSD_DECAY * total))
    done = max(0.0, 1 - (total - step) / num_decay)
    share = 1 - done if config.schedule == "wsd" else (1 + math.cos(math.pi * done)) / 2
    return floor + (peak - floor) * share
