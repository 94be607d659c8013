"""Settings for merging LoRAs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Method = Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
METHODS: tuple[Method, ...] = get_args(Method)

MajoritySign = Literal["total", "frequency"]
MAJORITY_SIGNS: tuple[MajoritySign, ...] = get_args(MajoritySign)


@dataclass(frozen=True)
class Recipe:
    """The method for merging LoRAs, and its settings.

    Attributes:
        rank: the rank of the result; None: as high as needed to lose nothing (linear), or the sum of the ranks.
        density: the share of each LoRA's values that is kept, above 0 and at most 1; not used by linear.
        majority_sign: the sign that TIES and DARE-TIES choose where signs differ: that of the sum ("total"), or the
            more frequent one ("frequency").
        seed: the random seed for the values that DARE drops.
    """

    method: Method = "linear"
    rank: int | None = None
    density: float = 0.5
    majority_sign: MajoritySign = "total"
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the settings that the method uses, for the metadata of the result."""
        facts: dict[str, Any] = {"method": self.method, "rank": self.rank}
        if self.method != "linear":
            facts["density"] = self.density
        if self.method in ("ties", "dare_ties"):
            facts["majority_sign"] = self.majority_sign
        if self.method in ("dare_linear", "dare_ties"):
            facts["seed"] = self.seed
        return facts
