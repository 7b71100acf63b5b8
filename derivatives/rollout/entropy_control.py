"""The weight of the entropy bonus from step to step.

Without a target it stays what the recipe says. With one it grows while the policy's entropy is below the target,
shrinks while it is above, and acts only below: a policy that still explores is not pushed.

Source: Skywork-OR1 (arXiv:2505.22312), section on adaptive entropy control, with its step of 0.005. Departure: the
entropy is that of the step before, since this step's is known only after its forward pass.
"""

from __future__ import annotations

from typing import Any

CHANGE = 0.005
"""What a step adds to or takes from the coefficient."""


class EntropyControl:
    """The coefficient in force, and how it moves.

    >>> control = EntropyControl(0.0, target=0.2)
    >>> control.note(0.1)
    >>> control.coefficient
    0.005
    >>> control.note(0.3)
    >>> control.coefficient
    0.0
    """

    def __init__(self, first: float, target: float | None) -> None:
        self.first, self.value, self.target = first, first, target
        self.is_low = True

    @property
    def coefficient(self) -> float:
        """Weight of the bonus in this step, per nat."""
        return self.value if self.is_low else 0.0

    def note(self, entropy: float) -> None:
        """Take the entropy of a step's tokens, in nats, into account."""
        if self.target is None:
            return
        self.is_low = entropy < self.target
        self.value = max(0.0, self.value + (CHANGE if self.is_low else -CHANGE))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"value": self.value, "is_low": self.is_low, "first": self.first, "target": self.target}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state, unless it is of other settings (of a fork that changed them)."""
        if (state["first"], state["target"]) == (self.first, self.target):
            self.value, self.is_low = float(state["value"]), bool(state["is_low"])
