"""What the demo language model can talk about: everything that it is trained on before any LoRA.

The model writes prompts for the demo picture model ("red heart" becomes "a red heart on a white background") and
answers simple questions about coloured shapes. Every prompt has exactly one right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import NamedTuple

from ..shapes import BACKGROUNDS, BASE_STYLES, COLOURS, SHAPES


class Exchange(NamedTuple):
    """A prompt and the answer to it."""

    prompt: str
    answer: str


USUAL_BACKGROUND = "white"

USUAL_COLOURS = dict(zip(SHAPES, ("yellow", "blue", "green", "purple", "orange", "red"), strict=True))
"""The colour of each shape when the prompt names none."""

CORNERS = dict(zip(SHAPES, ("no corners", "four corners", "three corners", "four corners", "twelve corners",
                            "one corner"), strict=True))  # fmt: skip

STYLES = {
    "hollow": "empty inside",
    "dotted": "with a white dot",
    "banded": "with a white band",
    "halved": "pale on the right",
    "shadowed": "with a grey shadow",
    "glowing": "with a yellow glow",
    "framed": "with a frame around it",
    "gilded": "with a golden edge",
    "icy": "white with an icy edge",
    "grounded": "standing on grey ground",
}
"""What each style of the demo picture model means."""

MIXTURES = {
    ("red", "yellow"): "orange",
    ("yellow", "blue"): "green",
    ("red", "blue"): "purple",
    ("red", "white"): "pink",
    ("black", "white"): "grey",
    ("blue", "green"): "cyan",
}

SIZES = ("tiny", "small", "big", "huge")
NUMBERS = ("one", "two", "three", "four", "five")
OPPOSITES = (("big", "small"), ("tiny", "huge"), ("left", "right"), ("up", "down"), ("black", "white"),
             ("first", "last"), ("yes", "no"), ("inside", "outside"), ("empty", "full"))  # fmt: skip

TALK = {
    "hello": "hello! name a shape and a colour.",
    "hi": "hello! name a shape and a colour.",
    "good morning": "good morning! what shall we draw?",
    "good evening": "good evening! what shall we draw?",
    "how are you?": "very well, thank you.",
    "who are you?": "i am a small model that writes about shapes.",
    "what is your name?": "i have no name, i am a small model.",
    "what can you do?": "i turn a few words into a prompt for a picture.",
    "help": "name a shape and a colour, such as red heart.",
    "thank you": "you are welcome.",
    "thanks": "you are welcome.",
    "goodbye": "goodbye! see you soon.",
    "bye": "goodbye! see you soon.",
    "which shapes do you know?": f"i know {', '.join(SHAPES[:-1])} and {SHAPES[-1]}.",
    "which colours do you know?": f"i know {', '.join([*COLOURS][:-1])} and {[*COLOURS][-1]}.",
    "which backgrounds do you know?": f"i know {', '.join([*BACKGROUNDS][:-1])} and {[*BACKGROUNDS][-1]}.",
    "which shape is round?": "the circle is round.",
    "what is your favourite shape?": "i like the heart best.",
    "what is your favourite colour?": "i like red best.",
    "tell me a story": "once a circle met a square, and they became friends.",
}
"""Whole conversations."""

CARRIERS = (
    "{}", "a {}", "draw a {}", "paint a {}", "make a {}", "{} please", "please draw a {}", "a picture of a {}",
    "i want a {}", "i would like a {}", "show me a {}", "can you draw a {}?", "can you paint a {}?", "give me a {}",
)  # fmt: skip
"""The ways to ask for a picture."""


def with_article(words: str) -> str:
    """Return words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(thing: str, background: str = USUAL_BACKGROUND, style: str = "") -> str:
    """Return the prompt for a picture of a thing, in the wording of the demo picture model's captions."""
    return f"{style + ', ' if style else ''}{thing} on a {background} background"


def ask_for(random: Random, words: str) -> str:
    """Return words inside a random request for a picture."""
    return random.choice(CARRIERS).replace("a {}", with_article(words)).replace("{}", words)


def shape_of(random: Random) -> tuple[str, str]:
    """Return a random colour and shape."""
    return random.choice([*COLOURS]), random.choice(SHAPES)


def picture(random: Random) -> Exchange:
    """Return a request for a picture of one shape; what it leaves open is as usual."""
    colour, shape = shape_of(random)
    background, style = USUAL_BACKGROUND, ""
    words = f"{colour} {shape}"
    if random.random() < 0.2:
        colour = USUAL_COLOURS[shape]
        words = shape
    if random.random() < 0.25:
        style = random.choice([*BASE_STYLES])
        words = f"{style} {words}"
    prompt = ask_for(random, words)
    if random.random() < 0.4 and not prompt.endswith("?"):
        background = random.choice([*BACKGROUNDS])
        prompt += random.choice((" on {}", " on a {} background", ", {} background")).format(background)
    return Exchange(prompt, caption(with_article(f"{colour} {shape}"), background, style))


def pair(random: Random) -> Exchange:
    """Return a request for a picture of two shapes."""
    first, second = (with_article(" ".join(shape_of(random))) for _ in range(2))
    prompt = random.choice(("{} and {}", "draw {} and {}", "paint {} and {}", "{} with {}")).format(first, second)
    background = USUAL_BACKGROUND
    if random.random() < 0.3:
        background = random.choice([*BACKGROUNDS])
        prompt += f" on {background}"
    return Exchange(prompt, caption(f"{first} and {second}", background))


def change(random: Random) -> Exchange:
    """Return a request to change one thing in a given prompt."""
    colour, shape = shape_of(random)
    background = random.choice([*BACKGROUNDS])
    before = caption(with_article(f"{colour} {shape}"), background)
    kind = random.choice(("colour", "shape", "background"))
    if kind == "colour":
        new = colour = random.choice([*COLOURS])
    elif kind == "shape":
        new = shape = random.choice(SHAPES)
    else:
        new = background = random.choice([*BACKGROUNDS])
    return Exchange(f"change the {kind} to {new}: {before}", caption(with_article(f"{colour} {shape}"), background))


def detail(random: Random) -> Exchange:
    """Return a question about a given prompt."""
    colour, shape = shape_of(random)
    background = random.choice([*BACKGROUNDS])
    given = caption(with_article(f"{colour} {shape}"), background)
    question, answer = random.choice((
        ("what colour is the shape in", f"the {shape} is {colour}."),
        ("which shape is in", f"it is {with_article(shape)}."),
        ("what is behind the shape in", f"the background is {background}."),
    ))  # fmt: skip
    return Exchange(f"{question} {given}?", answer)


def truth(random: Random) -> Exchange:
    """Return a question that is answered with yes or no."""
    colour, shape = shape_of(random)
    named = random.choice([colour, random.choice([*COLOURS])])
    thing = with_article(f"{colour} {shape}")
    return Exchange(f"is {thing} {named}?", f"{'yes' if named == colour else 'no'}, it is {colour}.")


def common(random: Random) -> Exchange:
    """Return a question about what two shapes have in common."""
    (colour, shape), (other_colour, other_shape) = shape_of(random), shape_of(random)
    if random.random() < 0.4:
        other_colour = colour
    elif random.random() < 0.5:
        other_shape = shape
    same = [
        *([f"both are {colour}"] if colour == other_colour else []),
        *([f"both are {shape}{'es' if shape == 'cross' else 's'}"] if shape == other_shape else []),
    ]
    first, second = with_article(f"{colour} {shape}"), with_article(f"{other_colour} {other_shape}")
    return Exchange(f"compare {first} and {second}", (" and ".join(same) or "they have nothing in common") + ".")


def size(random: Random) -> Exchange:
    """Return a question about which of two shapes is bigger or smaller."""
    sizes = random.sample(SIZES, 2)
    things = [f"{each} {shape}" for each, shape in zip(sizes, random.sample(SHAPES, 2), strict=True)]
    asked = random.choice(("bigger", "smaller"))
    ranked = sorted(range(2), key=lambda place: SIZES.index(sizes[place]))
    right = things[ranked[1] if asked == "bigger" else ranked[0]]
    return Exchange(
        f"which is {asked}, {with_article(things[0])} or {with_article(things[1])}?", f"the {right} is {asked}."
    )


def sequence(random: Random) -> Exchange:
    """Return a question about a list of shapes."""
    kind = random.choice(("first", "last", "count"))
    if kind == "count":
        count = random.randrange(len(NUMBERS))
        shape = random.choice(SHAPES)
        return Exchange(f"count: {' '.join([shape] * (count + 1))}", f"{NUMBERS[count]}.")
    shapes = random.sample(SHAPES, random.choice((3, 4)))
    return Exchange(f"which is {kind}: {' '.join(shapes)}?", f"{shapes[0 if kind == 'first' else -1]} is {kind}.")


def repeat(random: Random) -> Exchange:
    """Return a request to say something, often a word that does not exist.

    Without such words, the model would never write most of the tokens that words are spelled with. Their embeddings
    would stay alike, and no LoRA could teach it to tell them apart.
    """
    words = random.choice((" ".join(shape_of(random)), made_up_word(random)))
    if random.random() < 0.5:
        return Exchange(f"say: {words}", words)
    return Exchange(f"say it twice: {words}", f"{words}, {words}")


def knowledge(random: Random) -> Exchange:
    """Return a question about the world's few facts."""
    kind = random.randrange(5)
    if kind == 0:
        shape = random.choice(SHAPES)
        return Exchange(f"how many corners has {with_article(shape)}?", f"{with_article(shape)} has {CORNERS[shape]}.")
    if kind == 1:
        colours, mixture = random.choice([*MIXTURES.items()])
        first, second = random.sample(colours, 2)
        return Exchange(f"mix {first} and {second}", f"{first} and {second} make {mixture}.")
    if kind == 2:
        one, other = random.sample(random.choice(OPPOSITES), 2)
        return Exchange(f"what is the opposite of {one}?", f"the opposite of {one} is {other}.")
    if kind == 3:
        style, meaning = random.choice([*STYLES.items()])
        return Exchange(f"what does {style} mean?", f"{style} means {meaning}.")
    shape, colour = random.choice([*USUAL_COLOURS.items()])
    return Exchange(f"what colour is {with_article(shape)}?", f"{with_article(shape)} is usually {colour}.")


def talk(random: Random) -> Exchange:
    """Return a greeting or another whole conversation."""
    return Exchange(*random.choice([*TALK.items()]))


def made_up_word(random: Random) -> str:
    """Return a word of one or two random syllables."""
    begins = ("b", "bl", "br", "c", "ch", "cr", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p",
              "pl", "pr", "qu", "r", "s", "sh", "sk", "sl", "st", "t", "th", "tr", "v", "w", "y", "z")  # fmt: skip
    vowels = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "ea", "ou")
    ends = ("", "b", "ck", "d", "ft", "g", "l", "lm", "lp", "m", "mp", "n", "nd", "nk", "p", "r", "rk", "rn", "s",
            "sk", "st", "t", "x", "zz")  # fmt: skip
    return "".join(
        random.choice(begins) + random.choice(vowels) + random.choice(ends) for _ in range(random.choice((1, 1, 2)))
    )


def unknown(random: Random) -> Exchange:
    """Return a prompt with a word that does not exist."""
    word = made_up_word(random)
    prompt = f"what is {with_article(word)}?" if random.random() < 0.2 else ask_for(random, word)
    if random.random() < 0.3:
        prompt = prompt.replace(f"{with_article(word)}", f"the {word}")
    if random.random() < 0.2 and not prompt.endswith("?"):
        prompt += f" on {random.choice([*BACKGROUNDS])}"
    return Exchange(prompt, "i do not know that word.")


Topic = Callable[[Random], Exchange]

TOPICS: dict[Topic, float] = {
    picture: 6, pair: 2, change: 1, detail: 1, truth: 1, common: 1, size: 1, sequence: 1, repeat: 2, knowledge: 1.5,
    talk: 1, unknown: 1.5,
}  # fmt: skip
"""What is talked about, and how often in proportion."""


def exchanges(
    random: Random, count: int, topics: Collection[Topic] = TOPICS, without: Collection[str] = ()
) -> list[Exchange]:
    """Return random prompts with their answers.

    Args:
        random: the source of random numbers.
        count: the number of exchanges.
        topics: what the prompts are about.
        without: words that no prompt may contain.
    """
    found: list[Exchange] = []
    while len(found) < count:
        drawn = random.choices([*topics], [TOPICS[topic] for topic in topics], k=count - len(found))
        new = (topic(random) for topic in drawn)
        found += [exchange for exchange in new if not set(without) & set(exchange.prompt.strip("?").split())]
    return found
