"""What a scene can contain, and which part of it training never sees.

Two things are held out, so that "it learnt the pictures by heart" can be told from "it reads them":
eight colour-shape pairs (each colour and each shape is well known, their combination is new) and a
list of words.
"""

from __future__ import annotations

import hashlib

#: Colour name -> (red, green, blue), 0..255. The background is grey, so none of them is.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "green": (35, 155, 55),
    "blue": (40, 75, 220),
    "yellow": (240, 218, 40),
    "purple": (125, 45, 165),
    "orange": (245, 130, 20),
    "cyan": (45, 205, 215),
    "pink": (248, 135, 190),
}

#: Shape name -> plural, as "how many ..." needs it.
SHAPES: dict[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "diamond": "diamonds",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
    "moon": "moons",
}

#: Size name -> (smallest, largest) radius in pixels; a thing is twice as wide. The gaps between the
#: ranges keep the question fair.
SIZES: dict[str, tuple[int, int]] = {"small": (9, 10), "medium": (14, 15), "large": (20, 22)}

#: The nine places, row by row.
PLACES: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: Colour-shape pairs that no training scene (and no `test` scene) contains: each colour and each shape once.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "moon"),
        ("green", "ring"),
        ("blue", "cross"),
        ("yellow", "star"),
        ("purple", "diamond"),
        ("orange", "triangle"),
        ("cyan", "square"),
        ("pink", "circle"),
    }
)

_COMMON = """
ACE ACT ADD AGE AIM AIR ANT APE ARM ART ASH BAG BAT BED BEE BIG BOX BUS CAB CAP CAR CAT COW CUP DAY DOG
DRY EAR EGG ELF EYE FAN FIG FOG FOX FUN GAS GEM GUM HAT HEN HUT ICE INK JAM JAR JET JOB JOY KEY KIT LAB
LEG LID LIP LOG MAP MIX MUD NET NUT OAK OIL OWL PAN PEN PET PIE PIG RAT RAY RIB ROW RUG SEA SKY SUN TAX
TEA TIN TOY VAN WAX WEB WIG YAK ZOO ZIP
ACID AREA BABY BACK BALL BANK BARN BATH BEAR BELL BIRD BLOW BOAT BODY BONE BOOK BOWL CAKE CALM CAVE CHIN
CITY CLAY COAT COIN COOK CORN CROW DATE DEER DESK DISH DOOR DRUM DUCK DUST EAST EDGE EPIC FACE FARM FERN
FILM FISH FLAG FOOD FORK FROG GAME GATE GIFT GLUE GOAT GOLD GRAY HAND HAWK HERO HILL HOME HOOK IRIS IRON
JADE JUMP JURY KEEP KING KITE KIWI LADY LAKE LAMP LEAF LIME LION LOCK MARK MASK MILK MINT MOTH NAVY NECK
NEST NOON OATH OPEN OVAL OVEN PALM PARK PATH PEAR PLUM POEM POND QUIT QUIZ RAIN RICE ROAD ROCK ROOF ROSE
SALT SAND SHIP SHOE SNOW SOAP SOFA SONG TAIL TANK TENT TOAD TREE TUBE TWIN UNIT VASE VEIL VINE WALL WAVE
WEST WIND WOLF WOOD YARD YARN YOGA ZERO ZINC ZONE
ALARM ALBUM AMBER ANGEL APPLE APRON ATLAS BACON BADGE BASIN BEACH BERRY BLADE BLOCK BRAIN BREAD BRICK
BRUSH CABIN CAMEL CANDY CHAIR CHALK CLIFF CLOCK CLOUD COACH CORAL CRANE CROWN DAIRY DANCE DELTA DOUGH
DRESS EAGLE EARTH FAIRY FENCE FIELD FLAME FLOUR FLUTE FRUIT GHOST GLASS GLOBE GRAPE GRASS GUARD HEART
HONEY HORSE HOTEL HOUSE IGLOO IVORY JEWEL JUICE KNIFE KOALA LEMON LIGHT LUNCH MAGIC MAPLE MEDAL METAL
MONEY MOUSE MUSIC NIGHT NOVEL OCEAN OLIVE ONION OPERA OTTER PAINT PANDA PAPER PEACH PEARL PIANO PILOT
PIZZA PLANT PLATE QUEEN QUILT RADIO RAVEN RIVER ROBIN ROBOT SALAD SHARK SHEEP SHELF SHIRT SKATE SNAIL
SPOON STONE STORM SUGAR TABLE TIGER TOAST TOWEL TRAIN TRUCK UNCLE VIOLA VOICE WAGON WATCH WATER WHALE
WHEAT WITCH WORLD YACHT ZEBRA
"""


def _is_held_out(word: str) -> bool:
    """One real word in six, by a hash, so that adding a word never moves another one."""
    return hashlib.sha256(word.encode()).digest()[0] % 6 == 0


#: Real words that training scenes may show, and those that only `held_out` scenes show.
TRAIN_WORDS: tuple[str, ...] = tuple(w for w in _COMMON.split() if not _is_held_out(w))
HELD_OUT_WORDS: tuple[str, ...] = tuple(w for w in _COMMON.split() if _is_held_out(w))
