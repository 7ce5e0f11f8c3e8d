"""English contractions by the spellings that leave out an apostrophe: "dont" is "don't"."""

from __future__ import annotations

from itertools import product

# Left out are those whose bare spelling is a word of its own: its, were, well, ill, hell, shell, wed, shed, id,
# lets, whore.
_CONTRACTIONS = """
ain't aren't can't couldn't daren't didn't doesn't don't hadn't hasn't haven't isn't mayn't mightn't mustn't
needn't oughtn't shan't shouldn't wasn't weren't won't wouldn't
could've might've must've should've would've i've you've we've they've who've what've there've where've
you'll it'll they'll that'll this'll there'll who'll what'll when'll where'll why'll how'll
you're they're what're where're there're how're why're those're these're
he'd you'd it'd they'd that'd there'd who'd what'd when'd where'd why'd how'd
he's she's that's there's here's who's what's when's where's why's how's
somebody's someone's something's everybody's everyone's everything's nobody's
i'm ma'am o'clock y'all c'mon 'tis 'twas o'er ne'er
couldn't've hadn't've mightn't've mustn't've shouldn't've wouldn't've
i'd've you'd've he'd've she'd've it'd've we'd've they'd've there'd've who'd've
i'll've you'll've they'll've what'll've
"""


def _spellings(contraction: str) -> list[str]:
    """Every spelling of a contraction that keeps some of its apostrophes but not all."""
    parts = contraction.split("'")
    joints = list(product(("", "'"), repeat=len(parts) - 1))[:-1]
    return ["".join(a + b for a, b in zip(parts, (*joint, ""))) for joint in joints]


CONTRACTIONS = {spelling: word for word in _CONTRACTIONS.split() for spelling in _spellings(word)}
