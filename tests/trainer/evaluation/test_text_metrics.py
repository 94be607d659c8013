"""What is measured of texts."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered, prompt_tokens
from lora_crucible.data.text.rows import Turn
from lora_crucible.errors import CrucibleError
from lora_crucible.evaluation.text_metrics import (
    Question,
    difference,
    example_of,
    mean_divergence,
    measure_own,
)
from lora_crucible.models.examples import CachedExample
from lora_crucible.models.language.model import Answer
from toy_language import ANSWER, ASKED, STOP, Characters

RENDERER = Characters()


def tokens(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def question(prompt: str, answer: str, name: str = "") -> Question:
    rendered = RENDERER.conversation([Turn("user", prompt), Turn("assistant", answer)])
    return Question.of(TextExample(name or prompt, rendered, 16), STOP)


def written(text: str, stopped: bool = True) -> Answer:
    return Answer(text, tokens(text), stopped)


def test_a_row_is_taken_apart_at_its_answer():
    found = question("say a", "a!")
    assert found == Question("say a", (ASKED, *tokens("say a"), ANSWER), tokens("a!"), False)


def test_of_several_answers_the_first_counts():
    rendered = Rendered((1, 2, 3, 4, 5, 6), (False, False, True, True, False, True))
    assert Question.of(TextExample("row", rendered, 8), 9).answer == (3, 4)


def test_a_text_is_continued_from_its_first_quarter():
    found = Question.of(TextExample("row", RENDERER.text("abcdefghij"), 16), STOP)
    assert found.is_text
    assert found.prompt == (ASKED, *tokens("ab"))
    assert found.answer == tokens("cdefghij")


def test_an_answer_becomes_an_example_with_its_stop_token_only_if_it_stopped():
    prompt = RENDERER.prompt([Turn("user", "x")])
    whole, cut = example_of("x", prompt, written("yes"), STOP), example_of("x", prompt, written("yes", False), STOP)
    assert whole.rendered.tokens == (*prompt, *tokens("yes"), STOP)
    assert whole.rendered.trained == (*[False] * len(prompt), *[True] * 4)
    assert cut.rendered.tokens == (*prompt, *tokens("yes"))
    assert example_of("x", prompt, Answer("", (), False), STOP) is None
    assert example_of("x", prompt, Answer("", (), True), STOP).rendered.tokens[-1] == STOP


class Texts(Characters):
    """The renderer of a model without a template for conversations."""

    def prompt(self, turns):
        raise CrucibleError("This tokenizer has no chat template.")


def test_without_a_template_a_prompt_is_the_beginning_of_a_text():
    assert prompt_tokens(RENDERER, [Turn("user", "say a")]) == (ASKED, *tokens("say a"), ANSWER)
    assert prompt_tokens(Texts(), [Turn("user", "say a")]) == (ASKED, *tokens("say a"))


class Moved:
    """A base model whose rows moved by their inputs."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def divergence_from_base(self, rows):
        self.batches.append([row.inputs for row in rows])
        return torch.tensor([row.inputs for row in rows])


def test_the_divergence_is_a_mean_over_tokens_and_groups_stay_apart():
    rows = [CachedExample("a", 8, 1.0, weight=1), CachedExample("b", 16, 5.0, weight=3), CachedExample("c", 8, 2.0)]
    model = Moved()
    assert mean_divergence(model, rows, 2) == pytest.approx((1 + 15 + 2) / 5)
    assert model.batches == [[1.0, 2.0], [5.0]]


def own(asked, trained, base=None, training=(), limit: int = 20):
    base = base or [written(f"the base says {number}") for number in range(len(trained))]
    return measure_own(asked, trained, base, training, RENDERER, limit, (0.1, 0.2))


SUN = question("the sun", "a yellow circle on cyan", "row 1")
ROSE = question("the rose", "a red heart on pink", "row 2")


@pytest.mark.parametrize(
    ("asked", "answer", "base", "copies"),
    [
        (question("a rose", "a red heart on pink"), "a yellow circle on cyan", "?", ("row 1",)),
        (question("a rose", "a red heart on pink"), "A yellow  circle on cyan", "?", ("row 1",)),
        (question("a rose", "a red heart on pink"), "a red heart on pink", "?", ()),  # right
        (question("the sun", "another"), "a yellow circle on cyan", "?", ()),  # learned for this prompt
        (question("a rose", "a red heart on pink"), "a yellow circle on cyan", "a yellow circle on cyan", ()),
        (question("a rose", "a red heart on pink"), "a yellow circle", "?", ()),
    ],
)
def test_a_training_answer_to_another_prompt_is_a_copy(asked, answer, base, copies):
    assert own([asked], [written(answer)], [written(base)], [SUN, ROSE]).copies == copies


def test_short_answers_and_those_of_several_prompts_are_no_copies():
    yes = question("is it", "yes", "row 1")
    assert own([question("are you", "no")], [written("yes")], None, [yes]).copies == ()
    twice = [SUN, question("our sun", "a yellow circle on cyan", "row 3")]
    assert own([question("a rose", "a red heart")], [written("a yellow circle on cyan")], None, twice).copies == ()


def test_a_long_passage_of_a_training_text_is_a_copy():
    passage = "it was the best of times, it was the worst of times, it was the age of wisdom"
    text = Question.of(TextExample("book.txt, row 1", RENDERER.text(f"Once: {passage}."), 99), STOP)
    asked = Question.of(TextExample("held out", RENDERER.text("Something else that begins otherwise."), 99), STOP)
    assert own([asked], [written(passage)], None, [text]).copies == ("book.txt, row 1",)
    assert own([asked], [written("it was the best")], None, [text]).copies == ()


def test_only_answers_that_fit_must_end():
    asked = [question("a", "x" * 30), question("b", "short"), question("c", "short")]
    found = own(asked, [written("1", False), written("2"), written("3", False)], [written("b")] * 3)
    assert (found.could_end, found.ended, found.base_ended) == (2, 1, 2)


def test_answers_alike_are_counted():
    found = own([SUN, ROSE], [written("same"), written("same")])
    assert (found.expected_different, found.different, found.base_different) == (2, 1, 2)


def test_the_difference_of_two_answers():
    assert difference(written("abcd"), written("abcd")) == 0
    assert difference(written("abcd"), written("wxyz")) == 1
    assert difference(written("abcd"), written("abxy")) == pytest.approx(0.5)
