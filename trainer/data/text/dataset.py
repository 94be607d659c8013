"""A dataset of texts and conversations as training sees it, in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ...config import DatasetFacts, RowSettings, TrainingConfig
from ...config.data_settings import OPEN_IN_DATASETS, DataSettings
from ...errors import CrucibleError
from ...messages.wording import counted
from ..base import Dataset
from ..findings import Finding
from ..spread import spread
from ..validation_split import held_out_indices
from .examples import TextExample
from .length_groups import group_bounds, group_of
from .long_rows import FittedRow
from .render_rows import render_rows
from .rendering import Renderer
from .rows import Row, Turn
from .similar_texts import similar_texts

DEMO = "demo"
"""The name that stands for the rows that come with the package, used instead of a file or folder."""


@dataclass(frozen=True)
class TextDataset(Dataset):
    """A dataset of texts and conversations.

    Attributes:
        name: the name shown to the user: that of the file or folder, or `demo`.
        path: the file or folder; None for rows that come from elsewhere.
        settings: the settings that the dataset was loaded with, which become part of the run's config.
        row_settings: the settings of rows that it was loaded with, which become part of the run's config too.
        rows: the training rows, in the same order on every machine.
        validation: the rows held out to measure the training.
        regularization: the rows of what the model should not forget.
        regularization_prompts: prompts that the base model is to answer itself, as turns that end with one of the
            user; `with_regularization` adds the answers as rows.
        layout: sentences about the kinds of rows and how they were read.
        loading_findings: what the user should know about the rows as they were read.
        rendering_findings: what the user should know about them as they are trained.
        renderer: what turns rows into tokens; None until `rendered`.
        longest: the most tokens of an example; 0 until `rendered`.
        fitted: the tokens of each row; empty until `rendered`.
        not_in_folder: a sentence on what is missing if a config file only names the dataset, or "".
    """

    unit = "row"
    name: str
    path: Path | None
    settings: DataSettings
    row_settings: RowSettings = field(default_factory=RowSettings)
    rows: tuple[Row, ...] = ()
    validation: tuple[Row, ...] = ()
    regularization: tuple[Row, ...] = ()
    regularization_prompts: tuple[tuple[Turn, ...], ...] = ()
    layout: tuple[str, ...] = ()
    loading_findings: tuple[Finding, ...] = ()
    rendering_findings: tuple[Finding, ...] = ()
    renderer: Renderer | None = field(default=None, compare=False, repr=False)
    longest: int = 0
    fitted: dict[Row, FittedRow] = field(default_factory=dict, compare=False, repr=False)
    not_in_folder: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything about the dataset that the user should know."""
        return (*self.loading_findings, *self.rendering_findings)

    @property
    def source(self) -> str:
        """The value of `train_data_dir` that stands for the dataset in a config file."""
        return self.name if self.path is None else str(self.path)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what training depends on: rows, their order, their tokens and the settings.

        It does not depend on where the file is or when it was written, nor on what a dataset may leave open: a run has
        the values that were decided among its own settings.
        """
        left_out = {"train_data_dir", "reg_data_dir", "metadata_path", *OPEN_IN_DATASETS}
        digest = hashlib.sha256(self.settings.model_dump_json(exclude=left_out).encode())
        digest.update(f"{self.row_settings.long_rows}|{self.longest}".encode())
        for part in (self.rows, self.validation, self.regularization):
            digest.update(f"{len(part)}\0".encode())
            for row in part:
                digest.update(content_of(row).encode("utf-8", "surrogatepass"))
                for one in self.fitted[row].parts if row in self.fitted else ():
                    digest.update(f"{one.tokens}{one.trained}".encode())
        return digest.hexdigest()

    def require_trainable(self) -> None:
        """Check that the dataset can be trained.

        Raises:
            CrucibleError: a row cannot be used, or there are none.
        """
        errors = [finding.text() for finding in self.findings if finding.severity == "error"]
        if not self.rows and not errors:
            errors = [f"No row is left to train. {' '.join(finding.text() for finding in self.findings)}".strip()]
        if errors:
            where = "" if self.path is None else f" in {self.path}"
            raise CrucibleError(f"The dataset {self.name}{where} cannot be trained yet.\n" + "\n".join(errors))

    @property
    def validation_seed(self) -> int:
        return self.settings.validation_seed

    @property
    def training_names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def validation_names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.validation)

    @property
    def regularization_names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.regularization)

    @property
    def sample_prompts(self) -> tuple[str, ...]:
        return tuple(row.turns[-2].text for row in self.validation or self.rows if len(row.turns) > 1)

    @property
    def unrelated_prompts(self) -> tuple[str, ...]:
        if self.path is not None or self.name != DEMO:
            return ()
        from ...demo.text import unrelated_prompts

        return unrelated_prompts()

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        of_rows = self.row_settings.model_dump(exclude_defaults=True)
        return config.model_copy(update=self.settings.model_dump(exclude_none=True) | of_rows)

    @property
    def validation_percent(self) -> float | None:
        return self.settings.validation_percent

    def with_validation(self, percent: float) -> TextDataset:
        settings = self.settings.model_copy(update={"validation_percent": percent})
        return split_dataset(replace(self, settings=settings))

    def with_regularization(self, rows: Sequence[Row]) -> TextDataset:
        """Return the dataset with these rows as its regularization rows, rendered like the others.

        Raises:
            CrucibleError: a row of them has the name of another row.
        """
        dataset = replace(self, regularization=tuple(rows))
        if self.renderer is None:
            return dataset
        fitted, _, findings = render_rows(self.renderer, rows, self.longest, self.row_settings.long_rows)
        usable = tuple(row for row in rows if row in fitted and fitted[row].parts)
        return replace(
            dataset,
            regularization=usable,
            rendering_findings=(*self.rendering_findings, *findings),
            fitted={**self.fitted, **fitted},
        )

    def rendered(self, renderer: Renderer, longest: int) -> TextDataset:
        """Return the dataset with the tokens of its rows.

        Rows that cannot be rendered, and those whose answer would be cut, are errors in its findings; rows that are
        left out because of their length are gone.

        Args:
            renderer: what turns rows into tokens.
            longest: the most tokens of an example.
        """
        if renderer is self.renderer and longest == self.longest:
            return self
        everything = (*self.rows, *self.validation, *self.regularization)
        fitted, left_out, findings = render_rows(renderer, everything, longest, self.row_settings.long_rows)

        def kept(rows: Iterable[Row]) -> tuple[Row, ...]:
            return tuple(row for row in rows if row not in left_out)

        return replace(
            self,
            rows=kept(self.rows),
            validation=kept(self.validation),
            regularization=kept(self.regularization),
            renderer=renderer,
            longest=longest,
            fitted=fitted,
            rendering_findings=tuple(findings),
        )

    def examples(self, resolution: int | None) -> list[TextExample]:
        """Return the examples of an epoch in a fixed order; `resolution` has no meaning for texts."""
        own = self._examples(self.rows, 1.0) * self.settings.repeats
        regular = self._examples(self.regularization, self.settings.prior_loss_weight)
        wanted = round(self.settings.reg_ratio * len(own)) if regular else 0
        count = len(regular)
        if count >= wanted:
            return own + [regular[index * count // wanted] for index in range(wanted)]
        return own + [regular[index % count] for index in range(wanted)]

    def measured_examples(self, most: int, resolution: int | None) -> tuple[list[TextExample], list[TextExample]]:
        held_out = spread(self.validation, most)
        trained = spread(self.rows, len(held_out) or most)
        return self._examples(held_out, 1.0), self._examples(trained, 1.0)

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        return group_bounds(
            [len(part.tokens) for row in (*self.rows, *self.regularization) for part in self.fitted[row].parts]
        )

    def _examples(self, rows: Sequence[Row], weight: float) -> list[TextExample]:
        assert self.renderer is not None, "rendered() comes first"
        return [
            TextExample(_part_name(row, number, len(parts)), part, group_of(len(part.tokens), self._bounds), weight)
            for row in rows
            for parts in (self.fitted[row].parts,)
            for number, part in enumerate(parts, start=1)
        ]

    def facts(self, examples: Sequence[TextExample], resolution: int | None) -> DatasetFacts:
        trained = sum(len(self.fitted[row].parts) for row in self.rows) * self.settings.repeats
        longest = max((len(example.rendered.tokens) for example in examples), default=0)
        found = super().facts(examples, resolution)
        return replace(found, regularization_per_epoch=len(examples) - trained, longest=longest)

    def bucket(self, example: TextExample) -> int:
        return example.group

    def summary(self, resolution: int | None) -> str:
        rows = counted(len(self.rows), "row")
        if not self.fitted or not self.rows:
            return rows
        longest = max(len(part.tokens) for row in self.rows for part in self.fitted[row].parts)
        return f"{rows} of up to {longest:,} tokens"


def content_of(row: Row) -> str:
    """Return everything that a row says, without its name."""
    return "\x1e".join([row.text, *(f"{turn.role}\x1f{turn.text}" for turn in row.turns)])


def split_dataset(dataset: TextDataset) -> TextDataset:
    """Return a dataset with `validation_percent` of its rows held out for validation.

    Rows that are nearly the same as others, or ask the same, are never held out.
    """
    everything = [*dataset.rows, *dataset.validation]
    percent = dataset.settings.validation_percent or 0
    if not percent:
        return replace(dataset, rows=tuple(everything), validation=())
    texts = ["\n".join([row.text, *(turn.text for turn in row.turns)]) for row in everything]
    prompts = [content_of(replace(row, turns=row.turns[:-1])) for row in everything]
    groups = [*similar_texts(texts), *_equal(prompts)]
    alike = {index for group in groups for index in group}
    chosen = held_out_indices([content_of(row) for row in everything], alike, percent, dataset.validation_seed)
    findings = [finding for finding in dataset.loading_findings if finding.kind != "validation"]
    if not chosen:
        what = f"No row could be held out for validation ({percent:g} % of {counted(len(everything), 'row')})"
        why = "Nothing will show when the training starts to overfit."
        remedy = "Add rows that are not alike, or set a higher percentage."
        findings.append(Finding("validation", "warning", what, why, remedy))
    return replace(
        dataset,
        rows=tuple(row for index, row in enumerate(everything) if index not in chosen),
        validation=tuple(row for index, row in enumerate(everything) if index in chosen),
        loading_findings=tuple(findings),
    )


def _equal(texts: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.casefold(), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _part_name(row: Row, number: int, count: int) -> str:
    return row.name if count == 1 else f"{row.name}, part {number} of {count}"
