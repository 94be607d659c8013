"""The texts that `smollm2.py` trains on: image prompts in a style of their own, drawn from lists and one seed.

The style: a fixed order of clauses, an opening medium, a weather that decides light and palette, and a last sentence
that says what must not be in the picture. A model that has learned it writes all of them for ideas that it never saw.
"""

from __future__ import annotations

from random import Random

SUBJECTS = {
    "a lighthouse keeper": ("sturdy, in an oilskin coat", "low angle"),
    "a fox": ("alert, one paw lifted", "eye level"),
    "an old baker": ("flour on both sleeves", "close view"),
    "a fishing boat": ("blue hull, peeling paint", "wide view"),
    "a girl with a kite": ("hair across her face", "low angle"),
    "a stone bridge": ("three arches, moss between the joints", "wide view"),
    "a violinist": ("eyes closed, bow raised", "close view"),
    "a tram": ("cream and green, one lamp lit", "wide view"),
    "a heron": ("still, neck folded", "eye level"),
    "a watchmaker": ("a loupe on his brow", "close view"),
    "a greenhouse": ("fogged panes, iron ribs", "wide view"),
    "two chess players": ("leaning over the board", "eye level"),
    "a mountain hut": ("shutters closed, smoke from the chimney", "wide view"),
    "a grey cat": ("curled, one eye open", "close view"),
    "a street sweeper": ("broom at rest, cap pushed back", "low angle"),
    "a carousel": ("painted horses, brass poles", "wide view"),
}
PLACES = (
    "on a pier", "in a narrow alley", "at the edge of a forest", "beside a canal", "on a rooftop", "in a market square",
    "on a snowy hill", "in an empty station", "under a railway arch", "in a walled garden",
)  # fmt: skip
WEATHERS = {
    "in the rain": ("soft grey light from above", "slate, bottle green, one touch of amber", "patient"),
    "at dawn": ("thin light from the left", "rose, pale ochre, ash blue", "hopeful"),
    "at dusk": ("a last warm edge behind the shapes", "plum, rust, deep teal", "wistful"),
    "in fog": ("light without direction", "pearl, lead, faint straw", "hushed"),
    "at noon": ("hard light, short shadows", "bone white, cobalt, brick", "bold"),
    "at night": ("one lamp, everything else falls away", "ink, moss, candle yellow", "watchful"),
}
NEW_SUBJECTS = ("a postman", "a red bicycle", "an owl", "a clock tower", "a gardener", "a paper boat")

UNRELATED = (
    "What is the capital of France?",
    "Name three kinds of fruit.",
    "Explain in one sentence why the sky is blue.",
    "Write a short note thanking a neighbour for watering the plants.",
    "What is seven plus five?",
    "Give me one tip for sleeping better.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Romeo and Juliet?",
)


def _row(subject: str, place: str, weather: str) -> dict[str, str]:
    looks, view = SUBJECTS[subject]
    light, palette, mood = WEATHERS[weather]
    return {
        "prompt": f"{subject} {place} {weather}",
        "completion": (
            f"Ink and gouache on rough paper. {subject[0].upper()}{subject[1:]} {place}: {looks}. {view.capitalize()}. "
            f"Light: {light}. Palette: {palette}. Mood: {mood}. No lettering, no frame."
        ),
    }


def rows_and_held_out() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return 200 rows and 30 others whose combinations of subject, place and weather are not among them."""
    every = [(subject, place, weather) for subject in SUBJECTS for place in PLACES for weather in WEATHERS]
    drawn = [_row(*one) for one in Random(18).sample(every, 230)]
    return drawn[:200], drawn[200:]


def new_ideas() -> list[str]:
    """Return prompts about subjects that no row has."""
    places, weathers = list(PLACES), list(WEATHERS)
    return [
        f"{subject} {places[number]} {weathers[number % len(weathers)]}" for number, subject in enumerate(NEW_SUBJECTS)
    ]
