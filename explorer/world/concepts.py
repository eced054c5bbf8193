"""The concepts of the drawn world: what can stand in a scene, how large, where and in which colours.

The order of the table is the order in which a caption names things: partners of a prior
(see `priors.py`) follow their anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

THEMES = ("dining table", "farm", "sports court", "street", "living room", "beach", "garden", "wardrobe")

#: Hue in turns (0..1) for the colours that turn the hue; black and white are made by value.
HUES = {"red": 0.0, "orange": 0.08, "yellow": 0.145, "green": 0.33, "blue": 0.60, "purple": 0.78}
COLORS = (*HUES, "black", "white")


@dataclass(frozen=True)
class Concept:
    """One kind of thing.

    name: identifier, also the sprite's file name; phrase, plural: its words in a caption.
    theme: where it is usually found; size: (least, most) long side as a share of the picture.
    colors: weights of the colours it comes in; empty when it keeps the sprite's own colours.
    """

    name: str
    phrase: str
    plural: str
    theme: str
    size: tuple[float, float]
    colors: dict[str, float]


SMALL, MEDIUM, LARGE = (0.19, 0.28), (0.24, 0.38), (0.32, 0.48)
BRIGHT = {"red": 3.0, "blue": 3.0, "yellow": 2.0, "green": 2.0, "purple": 1.0, "black": 1.0}
PAINT = {"red": 3.0, "blue": 3.0, "yellow": 2.0, "green": 1.0, "white": 1.0, "black": 1.0}

# theme: name or name=phrase/plural, size letter, colour table
_TABLE: dict[str, str] = {
    "dining table": (
        "cake M | fork_and_knife=fork and knife/forks and knives M | pizza M"
        " | wine_glass=wine glass/wine glasses M"
        " | cup S | donut S | bread=loaf of bread/loaves of bread M"
        " | cheese=piece of cheese/pieces of cheese S"
        " | sandwich=/sandwiches M | bottle M | hot_dog=hot dog/hot dogs M"
    ),
    "farm": (
        "sheep=/sheep M | dog M | horse L | cow L | pig M | duck S | rabbit S | corn=corn cob/corn cobs M"
    ),
    "sports court": (
        "tennis_racket=tennis racket/tennis rackets L | tennis_ball=tennis ball/tennis balls B | basketball M"
        " | sports_ball=soccer ball/soccer balls S | football S | frisbee S | skateboard M"
    ),
    "street": (
        "car L paint | traffic_light=traffic light/traffic lights M | bus=/buses L | truck L paint"
        " | motorcycle M paint | bicycle M | stop_sign=stop sign/stop signs S | house L"
    ),
    "living room": (
        "chair M | cat M | couch=/couches L bright | tv=tv/tvs M | lamp S | clock S"
        " | book S bright | potted_plant=potted plant/potted plants M"
        " | teddy_bear=teddy bear/teddy bears M | guitar L | laptop M"
    ),
    "beach": (
        "camera M | person=/people L | boat L | kite M"
        " | glasses=pair of glasses/pairs of glasses S | fish=/fish M"
        " | turtle M | suitcase M paint"
    ),
    "garden": (
        "strawberry=/strawberries S | bowl M paint | apple S apple | bird M | tree L | flower M"
        " | butterfly=/butterflies M | mushroom S"
        " | snail S | watermelon M | banana M | carrot S | grapes=bunch of grapes/bunches of grapes M grapes"
    ),
    "wardrobe": (
        "shirt L bright | tie M | hat M | shoe M | sock S | handbag M bright"
        " | backpack M bright | umbrella L bright | crown S | ribbon S"
    ),
}
_SIZES = {"B": (0.16, 0.22), "S": SMALL, "M": MEDIUM, "L": LARGE}
_COLORS = {
    "paint": PAINT,
    "bright": BRIGHT,
    "apple": {"red": 0.80, "green": 0.17, "black": 0.03},
    "grapes": {"purple": 0.7, "green": 0.3},
}


def _parse(theme: str, entry: str) -> Concept:
    """One table entry, "name[=phrase/plural] SIZE [colours]"."""
    head, _, words = entry.partition("=")
    fields = (words or head).split(" ")
    at = next(i for i, field in enumerate(fields) if field in _SIZES)
    colors = _COLORS[fields[at + 1]] if len(fields) > at + 1 else {}
    text = " ".join(fields[:at])
    name = head if words else text
    phrase, plural = name, name + "s"
    if words:
        phrase, _, plural = text.partition("/")
        phrase = phrase or name
    return Concept(name, phrase, plural, theme, _SIZES[fields[at]], colors)


TABLE: tuple[Concept, ...] = tuple(
    _parse(theme, entry.strip()) for theme, row in _TABLE.items() for entry in row.split("|")
)
CONCEPTS: tuple[str, ...] = tuple(concept.name for concept in TABLE)
BY_NAME: dict[str, Concept] = {concept.name: concept for concept in TABLE}
INDEX: dict[str, int] = {name: i for i, name in enumerate(CONCEPTS)}


def by_theme(theme: str) -> tuple[Concept, ...]:
    """The concepts that are at home in a theme, in table order."""
    return tuple(concept for concept in TABLE if concept.theme == theme)
