"""Sentences to speak: our own words put together by small grammars, split by word into training and held-out sets.

English sentences come from templates, so their number is practically endless; invented words cover sound sequences that
no word list has; a few whole sentences of other languages widen the phonemes. Held-out sentences use content words
that training sentences never contain.
"""

import random
from typing import Literal

Split = Literal["train", "held_out"]

_NOUNS = """apple baker river window mother father morning paper boat village bridge camera pepper bottle problem
butter number bishop family summer pepper cabin thumb beaver people market blanket museum piano mountain
elephant octopus bamboo voice feather valley movie oven giraffe thunder author weather brother cloth fish
fashion ocean shoulder church judge jungle garage treasure measure vision kitchen pigeon carrot cookie
dragon tiger ladder garden doctor lawyer teacher student engine yellow jacket onion union queen quiz
wagon whale wheel sandwich rainbow road robot lemon lamp melon moon noodle nurse sailor salad soldier
spoon stone street sugar swan table tailor teapot tomato tower train turtle uncle violin waiter wolf yard
zebra zoo mushroom pumpkin bumper lamb comb film farm firm fame foam palm bulb globe tribe robe ship
sheep shop shape soap soup sip map mop mob web cab cube tube pipe type""".split()
_VERBS = """brings makes moves remembers paints builds improves believes follows finds watches washes pushes puts
opens covers copies keeps kicks carries calls wants warms wakes visits leaves loves lifts throws thinks
breathes teaches reaches judges changes measures buys bends mixes maps mends plays pulls polishes prefers
proves shows shapes shares chooses chews draws dreams drops drives eats asks empties enjoys examines
fills feeds fixes folds gives grabs greets hears helps hides holds imagines invents joins""".split()
_ADJECTIVES = """big blue brown purple marvellous famous fabulous viable awful open empty warm wonderful yellow young
usual unusual beautiful foolish thick thin smooth rough cheap rich short sharp shiny simple silent quiet
quick queer round ripe red rare lovely lazy long little old oval orange odd heavy hollow happy humble
male female remote moderate clever clean cold kind green grey great golden deep dark dusty dry tall tiny
tired""".split()
_ADVERB_PHRASES = (
    "maybe", "perhaps", "today", "tomorrow", "slowly", "quickly", "before breakfast", "always", "never", "often",
    "above the house", "behind the wall", "every morning", "in February", "with much love", "over the moon",
    "for five minutes", "without a map", "by the sea", "at home", "once more", "in the middle of July", "very early",
    "after supper", "from time to time", "for my brother", "between the walls", "up the path", "beyond the forest",
)  # fmt: skip
_TEMPLATES = (
    "{adverb}, the {adjective} {noun} {verb} my {noun2}.",
    "The {noun} {verb} the {adjective} {noun2} {adverb}.",
    "Why would a {adjective} {noun} move above the {noun2}?",
    "If the {noun} {verb} a {noun2}, we all go home.",
    "My {noun} and your {adjective} {noun2} were here {adverb}.",
    "Please put the {noun} beside the {adjective} {noun2}!",
    "{number} {adjective} things: a {noun}, a {noun2}, and me.",
    "Nobody {verb} a {noun}, but everybody {verb2} this {adjective} {noun2}.",
    "Oh, how {adjective} the {noun} was {adverb}.",
    "I have never seen a {adjective} {noun}; have you?",
    "We saw {number} {adjective} boats near the {noun}.",
    "Wait. The {noun} {verb} us, and we {adverb} thank the {noun2}.",
    "{invented}, said the {noun}, {invented2}.",
    "{invented} {invented2} {invented3}.",
)
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "fifty")
_ONSETS = "b p m f v w t d n s z l r k g h sh ch th j y bl pl fl br pr fr sp sm sw tr kr".split()
_VOWELS = "a e i o u ee oo ah aw ow oy ay".split()
_CODAS = ["", "", "m", "b", "p", "f", "v", "n", "s", "sh", "l", "t", "k", "th", "ng", "mp"]
_FOREIGN: dict[str, tuple[str, ...]] = {
    "de": (
        "Morgen früh kaufen wir fünf schöne Bücher auf dem Markt.",
        "Mein Bruder möchte im Winter über die Berge wandern.",
        "Auch wenn es regnet, bleibt das Boot am Ufer liegen.",
        "Die Lampe brennt, aber niemand ist zu Hause.",
        "Bitte bring mir ein Glas Wasser und etwas Brot mit.",
        "Vor vielen Jahren wohnte hier ein alter Maler.",
    ),
    "fr": (
        "Je voudrais un peu de beurre frais et du pain brun.",
        "Aujourd'hui nous partons pour la petite ville au bord de la mer.",
        "Mon voisin porte un manteau bleu et un vieux chapeau.",
        "Il faut une bonne heure pour monter sur la colline.",
        "Le matin, les enfants jouent sous le grand pommier.",
        "Peux-tu fermer la fenêtre, s'il te plaît ?",
    ),
    "es": (
        "Mañana vamos a viajar por el pueblo viejo con mi hijo.",
        "La lluvia cae despacio sobre las flores amarillas.",
        "Mi abuela prepara una sopa de tomate muy buena.",
        "El barco pequeño vuelve siempre al puerto.",
        "Quiero comprar un libro y un mapa para el camino.",
        "Por favor, abre la puerta y mira la luna.",
    ),
    "it": (
        "Oggi mangiamo insieme agli amici sotto il vecchio ponte.",
        "La mamma compra pane fresco e un po' di burro.",
        "Domani partiamo molto presto per la montagna.",
        "Il bambino guarda la luna piena dalla finestra.",
        "Vorrei un bicchiere d'acqua e una mela verde.",
        "Il pittore dipinge una barca blu sul mare.",
    ),
}


def split_words(words: list[str] | tuple[str, ...], split: Split) -> list[str]:
    """Every fifth word is held out; the others are for training."""
    unique = list(dict.fromkeys(words))
    return [word for index, word in enumerate(unique) if (index % 5 == 4) == (split == "held_out")]


def invented_word(generator: random.Random) -> str:
    """A pronounceable word of one to three syllables that no dictionary has to have."""
    syllables = generator.randint(1, 3)
    return "".join(
        generator.choice(_ONSETS) + generator.choice(_VOWELS) + generator.choice(_CODAS) for _ in range(syllables)
    )


def english_sentence(generator: random.Random, split: Split = "train") -> str:
    """One English sentence; its nouns, verbs and adjectives are of ``split`` only."""
    nouns, verbs = split_words(_NOUNS, split), split_words(_VERBS, split)
    sentence = generator.choice(_TEMPLATES).format(
        noun=generator.choice(nouns),
        noun2=generator.choice(nouns),
        verb=generator.choice(verbs),
        verb2=generator.choice(verbs),
        adjective=generator.choice(split_words(_ADJECTIVES, split)),
        adverb=generator.choice(_ADVERB_PHRASES),
        number=generator.choice(_NUMBERS),
        invented=invented_word(generator),
        invented2=invented_word(generator),
        invented3=invented_word(generator),
    )
    return sentence[0].upper() + sentence[1:]


def sentence(generator: random.Random, language: str = "en-us", split: Split = "train") -> str:
    """A sentence for an espeak-ng language such as ``"en-us"`` or ``"de"``; unknown languages get English words."""
    known = _FOREIGN.get(language.split("-")[0])
    if known is None:
        return english_sentence(generator, split)
    return generator.choice(split_words(known, split))


def passage(generator: random.Random, language: str = "en-us", split: Split = "train", sentences: int = 2) -> str:
    """Several sentences in a row, separated by blanks."""
    return " ".join(sentence(generator, language, split) for _ in range(sentences))
