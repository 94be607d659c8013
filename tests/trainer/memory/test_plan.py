from __future__ import annotations

from lora_crucible.memory.plan import MemoryPlan, largest_batch, largest_number_of_rows
from lora_crucible.models.examples import CachedExample


def samples(**groups: tuple[int, int]) -> list[CachedExample]:
    """Of each group so many, each of such a size."""
    return [
        CachedExample(f"{group}{index}", group, None, size)
        for group, (count, size) in groups.items()
        for index in range(count)
    ]


def test_micro_batches_have_the_same_rows_in_the_same_order():
    batches = [[5, 3, 8, 1], [2, 7, 4]]
    assert MemoryPlan(4).micro_batches(batches) == batches
    assert MemoryPlan(3).micro_batches(batches) == [[5, 3, 8], [1], [2, 7, 4]]
    assert MemoryPlan(1).micro_batches(batches) == [[5], [3], [8], [1], [2], [7], [4]]


def test_the_largest_batch_has_the_most_pixels_in_all():
    several = samples(wide=(1, 100), square=(9, 60), small=(9, 20))
    assert [one.name for one in largest_batch(several, 4)] == ["square0", "square1", "square2", "square3"]
    assert [one.name for one in largest_batch(several, 1)] == ["wide0"]


def test_rows_that_never_share_a_batch_are_not_planned_for():
    assert largest_number_of_rows(samples(wide=(1, 100), square=(2, 60)), 4) == 2
    assert largest_number_of_rows(samples(wide=(1, 100), square=(9, 60)), 4) == 4
