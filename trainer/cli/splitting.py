"""Whether a launch asks for a base model that is split over its processes."""

from __future__ import annotations

from .display import display


def asks_for_splitting() -> bool:
    """Return whether the launch asks for it, after telling the user what is done differently or not used.

    Raises:
        CrucibleError: it asks for what this torch cannot do, or for what no base model can.
    """
    from ..distributed.launch import launch_request
    from ..distributed.processes import current
    from ..models.split_refusals import require_splitting

    request, processes = launch_request(), current()
    for note in request.notes if processes.is_main else ():
        display().say(note)
    if not request.splits:
        return False
    if processes.count == 1:
        display().say(
            f"{request.by} splits the base model over several processes, but this one is alone, so it stays whole."
        )
        return False
    require_splitting()
    return True
