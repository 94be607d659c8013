"""Training in several processes: one talks to the user, the others only tell what stops them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from ..errors import CrucibleError


@contextmanager
def with_others() -> Iterator[None]:
    """Train together with the other processes of a launch inside the context, if there are any.

    Raises:
        CrucibleError: the other processes cannot be reached; or what another raised, with the name of the process that
            tells it.
    """
    from ..distributed.joined import are_several, joined

    if not are_several():
        yield
        return
    with joined() as processes:
        if processes.is_main:
            yield
            return
        logging.disable(logging.WARNING)
        try:
            with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
                yield
        except CrucibleError as error:
            error.args = (f"{processes.name(processes.rank)}: {error}",)
            raise
        finally:
            logging.disable(logging.NOTSET)
