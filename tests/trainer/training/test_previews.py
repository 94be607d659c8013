"""Samples that are drawn during training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.models.previews import Sampling
from lora_crucible.runs.best_effort import BestEffort
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training import previews
from lora_crucible.training.previews import PreviewSamples, sampling_of
from toy import Texts, Toy
from toy_language import Sayings


def test_the_time_of_a_sampling_step_is_that_of_drawing_alone(tmp_path, monkeypatch):
    """The run uses it to predict how long measuring the finished LoRA would take."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(previews, "time", SimpleNamespace(monotonic=lambda: clock.now))

    class Slow(Texts):
        def draw(self, sampling):
            clock.now += 4.0
            return super().draw(sampling)

    toy = Toy()
    toy.previewer = Slow(toy)
    files = RunFiles.claim("toy", tmp_path, tmp_path)
    sampling = Sampling(("one", "two"), 64, 64, seed=0, steps=10, cfg=1.0, sampler="euler", scheduler="normal")
    samples = PreviewSamples(toy, sampling, files, BestEffort())
    assert samples.seconds_per_sampling_step is None
    with toy.attached(AdapterSpec(1, 1.0, 0.0, "linear"), False) as adapters:
        for step in (0, 1):
            samples.draw(adapters, step)
            clock.now += 60.0  # training
            assert samples.seconds_per_sampling_step == pytest.approx(0.2)
    resumed = PreviewSamples(toy, sampling, files, BestEffort())
    resumed.restore(samples.state())
    assert resumed.seconds_per_sampling_step == pytest.approx(0.2)


def test_long_answers_are_cut_in_the_report(tmp_path):
    class Essays(Texts):
        def draw(self, sampling):
            return ("word\n" * 100,)

    toy = Toy()
    toy.previewer = Essays(toy)
    files = RunFiles.claim("toy", tmp_path, tmp_path)
    sampling = Sampling(("Tell me.",), 0, 0, seed=0, steps=10, cfg=1.0, sampler="euler", scheduler="normal")
    samples = PreviewSamples(toy, sampling, files, BestEffort())
    assert samples.lines() == []
    with toy.attached(AdapterSpec(1, 1.0, 0.0, "linear"), False) as adapters:
        assert samples.draw(adapters, 0) == ("word\n" * 100,)
        assert samples.lines() == []
        samples.draw(adapters, 20)
    title, prompt, before, after = samples.lines()
    assert title == "Sample answers before the first step and after step 20 (all are in samples/):"
    assert prompt == "  Tell me."
    assert before.startswith("    before: word word")
    assert after.endswith("…")
    assert len(after) < 330


@pytest.mark.parametrize(
    ("given", "dataset", "prompts"),
    [
        ("say x\nsay y", Sayings(), ("say x", "say y")),
        ("", Sayings(), ("tell A", "tell B", "tell C", "tell D")),
        ("", Sayings(held_out=()), ()),
    ],
)
def test_prompts_are_those_given_or_those_that_the_dataset_suggests(complete, given, dataset, prompts):
    sampling = sampling_of(complete(task_type="text-generation", sample_prompts=given, max_new_tokens=99), dataset)
    assert sampling.prompts == prompts
    assert sampling.max_new_tokens == 99
