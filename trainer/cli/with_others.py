"""Training in several processes: one talks to the user, the others only tell what stops them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..distributed.launch import are_several
from ..errors import CrucibleError

log = logging.getLogger(__name__)

UNUSED = {
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", "no"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", "1"),
}
"""The variables of accelerate's launcher that say what the config of a run says, with the setting there and the value
that means nothing."""


@contextmanager
def with_others() -> Iterator[None]:
    """Train together with the other processes of a launch inside the context, if there are any.

    Raises:
        CrucibleError: the other processes cannot be reached; or what another raised, with the name of the process that
            tells it.
    """
    if not are_several():
        yield
        return
    from ..distributed.joined import joined

    with joined() as processes:
        if processes.is_main:
            _tell_what_is_not_used()
            yield
            return
        try:
            yield
        except CrucibleError as error:
            error.args = (f"{processes.name(processes.rank)}: {error}",)
            raise


def _tell_what_is_not_used() -> None:
    """Warn about settings of accelerate's own config that the config of the run has, too, and that have no effect."""
    for variable, (setting, none) in UNUSED.items():
        value = os.environ.get(variable, none)
        if value != none:
            log.warning(
                "%s is %s in accelerate's config, where it has no effect: the config file of the run decides. Set it "
                "there.",
                setting,
                value,
            )
