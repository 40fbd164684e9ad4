"""The singular of English nouns.

HanTa's own lemmas go back to the stem of a word (surfer: surf, skis: sky), which would merge different things, so only
its tags are used. What follows is the regular plural with its spelling rules, and the words that break them.
"""

from __future__ import annotations

import functools

IRREGULAR = {
    "people": "people", "men": "man", "women": "woman", "children": "child", "feet": "foot", "geese": "goose",
    "teeth": "tooth", "mice": "mouse", "oxen": "ox", "dice": "die", "pence": "penny", "lice": "louse",
    "axes": "axe", "buses": "bus", "busses": "bus", "gases": "gas", "lenses": "lens", "irises": "iris",
    "canvases": "canvas", "atlases": "atlas", "aliases": "alias", "pancreases": "pancreas", "biases": "bias",
    "oases": "oasis", "bases": "base", "crises": "crisis", "theses": "thesis", "analyses": "analysis",
    "quizzes": "quiz", "caches": "cache", "toothaches": "toothache", "headaches": "headache", "mustaches": "mustache",
    "moustaches": "moustache", "quiches": "quiche", "niches": "niche", "avalanches": "avalanche",
    "axles": "axle", "cacti": "cactus", "fungi": "fungus", "larvae": "larva", "aircraft": "aircraft",
    "cookies": "cookie", "hooves": "hoof", "stadia": "stadium", "phenomena": "phenomenon", "criteria": "criterion",
    "skis": "ski", "skiis": "ski", "taxis": "taxi", "bikinis": "bikini", "kiwis": "kiwi", "gis": "gi",
    "graffiti": "graffiti", "spaghetti": "spaghetti", "wolves": "wolf", "dwarves": "dwarf", "clothes": "clothes",
}  # fmt: skip
"""Plurals that no rule below makes."""

SAME = frozenset(
    "scissors pants jeans shorts clothes trousers sunglasses eyeglasses goggles binoculars tongs pliers tweezers "
    "headphones pajamas pyjamas tights leggings overalls khakis slacks underpants boxers sweatpants "
    "electronics news athletics gymnastics mechanics physics series species "
    "tennis swiss chess grass glass dress mess boss cross mattress compass hostess waitress actress princess "
    "cypress fortress address business canvas atlas bus gas plus lens iris iris christmas texas paris las "
    "chaos asparagus cosmos hummus citrus virus cactus campus circus octopus walrus bonus lotus minibus trolleybus "
    "debris pancreas molasses headquarters outdoors indoors upstairs downstairs whereabouts barracks "
    "rhinoceros platypus hippopotamus apparatus status census focus thermos sos bias alias".split()
)
"""Words that end in s and are no plural, or have no singular that means the same."""

WITH_IE = frozenset(
    "cookie movie zombie hoodie smoothie brownie selfie tie necktie bowtie pie rookie goalie birdie doggie genie "
    "calorie prairie collie pixie magpie budgie hippie junkie veggie newbie freebie groupie talkie sortie wheelie "
    "beanie auntie sweetie cutie barbie die lie vie indie eyrie camaraderie boogie bogie cowrie yuppie townie "
    "foodie roadie eerie lassie laddie menagerie patisserie rotisserie lingerie oldie kiddie hankie bourgeoisie".split()
)
WITH_F = frozenset("leaf loaf thief sheaf half calf shelf elf self wolf scarf wharf bookshelf cloverleaf".split())
WITH_FE = frozenset("knife wife life midwife housewife penknife jackknife".split())
WITH_OE = frozenset("shoe toe hoe canoe doe foe horseshoe snowshoe tiptoe oboe aloe mistletoe roe".split())
_HISSING = ("ch", "sh", "x", "ss", "zz")


@functools.lru_cache(maxsize=1 << 16)
def singular(word: str) -> str:
    """Return the singular of a lower-case noun; a word that is none already is returned as it is.

    >>> [singular(word) for word in ("buses", "knives", "skis", "people", "women", "tennis", "horses", "scissors")]
    ['bus', 'knife', 'ski', 'people', 'woman', 'tennis', 'horse', 'scissors']
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    for ending, one in (("men", "man"), ("children", "child"), ("feet", "foot"), ("teeth", "tooth"), ("mice", "mouse")):
        if word.endswith(ending) and len(word) > len(ending) + 2 and word not in ("specimen", "regimen", "ramen"):
            return word.removesuffix(ending) + one
    if word in SAME or not word.endswith("s") or word.endswith(("ss", "us", "is")) or len(word) < 4:
        return word
    stem = word[:-1]
    if stem.endswith("ie"):
        return stem if stem in WITH_IE or len(stem) < 4 else f"{stem[:-2]}y"
    if stem.endswith("ve"):
        for end, known in (("f", WITH_F), ("fe", WITH_FE)):
            if (single := stem[:-2] + end) in known:
                return single
        return stem
    if stem.endswith("oe"):
        return stem if stem in WITH_OE else stem[:-1]
    if stem.endswith("e") and stem[:-1].endswith(_HISSING):
        return stem[:-1]
    return stem
