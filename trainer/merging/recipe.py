"""How LoRAs are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Method = Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
METHODS: tuple[Method, ...] = get_args(Method)

MajoritySign = Literal["total", "frequency"]
MAJORITY_SIGNS: tuple[MajoritySign, ...] = get_args(MajoritySign)


@dataclass(frozen=True)
class Recipe:
    """
    Attributes:
        rank: of the result; None: as high as it must be to lose nothing (linear), or the sum of the ranks.
        density: what share of each LoRA's values is kept, above 0 to 1; not for linear.
        majority_sign: for TIES and DARE-TIES: which sign wins where they differ, that of the sum or of more of them.
        seed: of the values that DARE drops.
    """

    method: Method = "linear"
    rank: int | None = None
    density: float = 0.5
    majority_sign: MajoritySign = "total"
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """What counts for the method, for the metadata of the result."""
        facts: dict[str, Any] = {"method": self.method, "rank": self.rank}
        if self.method != "linear":
            facts["density"] = self.density
        if self.method in ("ties", "dare_ties"):
            facts["majority_sign"] = self.majority_sign
        if self.method in ("dare_linear", "dare_ties"):
            facts["seed"] = self.seed
        return facts
