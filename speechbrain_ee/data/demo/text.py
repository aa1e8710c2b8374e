"""What the speakers of the demo corpus say: a small grammar of English.

A sentence form is a line with slots, ``the {adjective} {animal} {went}``; a
slot is filled by one of its phrases, which may have slots themselves. The
subjects are those of every day: house, market, weather, travel, clock and
calendar. Forms and phrases multiply to far more sentences than a corpus can
hold, so that a model has to hear the words and cannot know the sentences.

Words that sound alike (*sea*, *see*) are left out as far as possible: a
recogniser without a language model could only guess among them.

Authors
 * The speechbrain-ee contributors 2026
"""

import re

import numpy as np

# Phrases of a slot are separated by commas.
SLOTS: dict[str, str] = {
    # who
    "role": """baker, farmer, teacher, doctor, sailor, painter, gardener,
        driver, singer, dancer, pilot, nurse, carpenter, fisherman,
        captain, shepherd, student, builder""",
    "kin": """mother, father, sister, brother, uncle, grandmother, cousin,
        daughter, husband, friend""",
    "who": """the {role}, the {role}, the {role}, my {kin}, my {kin},
        your {kin}, we, they, i, she, he, everybody, nobody, somebody""",
    "person": "the {role}, the {role}, my {kin}, your {kin}",
    "them": "me, us, him, them, the {role}, the {role}, my {kin}",
    "animal": """cat, dog, horse, rabbit, fox, squirrel, sparrow, owl,
        donkey, goose, pony, kitten, turtle, badger, hedgehog, swan, lamb,
        beaver, parrot, spider, butterfly, elephant, dolphin, penguin""",
    # what
    "thing": """basket, lantern, umbrella, blanket, bucket, ladder, hammer,
        mirror, pencil, letter, newspaper, notebook, candle, kettle, teapot,
        bottle, pillow, suitcase, bicycle, jacket, scarf, button, ribbon,
        violin, guitar, trumpet, clock, telescope, camera, key, coat, shovel,
        wagon, ticket, curtain, carpet""",
    "things": """buttons, ribbons, letters, tickets, candles, bottles,
        baskets, pencils, stamps, coins, flowers, feathers""",
    "food": """bread, butter, cheese, honey, soup, porridge, pancakes,
        carrots, potatoes, onions, biscuits, strawberries, cherries,
        mushrooms, rice, noodles, salad, chocolate, tomatoes, pumpkin,
        walnuts, apples""",
    "drink": "milk, coffee, water, lemonade, cocoa",
    "dish": "{food}, {food}, {drink}",
    # what it is like
    "colour": """red, blue, green, yellow, purple, orange, brown, silver,
        golden, black, white, pink""",
    "mood": """clever, friendly, hungry, sleepy, lazy, happy, gentle, brave,
        curious, noisy, playful, nervous""",
    "shape": """little, tiny, huge, old, heavy, wooden, broken, empty,
        lovely, dusty, soft, shiny, crooked, square, modern""",
    "adjective": "{colour}, {shape}, {mood}",
    "look": "{colour}, {shape}",
    "taste": "fresh, sweet, delicious, warm, cold, salty, bitter, perfect",
    "weather": "sunny, cloudy, windy, rainy, foggy, stormy, freezing, mild",
    "sky": "rain, snow, thunder, wind, storm, fog, frost, sunshine",
    # where
    "building": """kitchen, station, school, library, museum, castle,
        bakery, hospital, theatre, stable, barn, lighthouse, workshop, tower,
        church, office, airport, hotel""",
    "land": """garden, forest, river, village, mountain, market, harbour,
        bridge, meadow, island, valley, orchard, city, lake, park""",
    "place": "{building}, {land}",
    "at": "near, behind, beside, outside, around, towards",
    "where": """{at} the {building}, {at} the {building},
        inside the {building}, {at} the {land}, across the {land},
        beyond the {land}""",
    "spot": """on the table, under the bed, behind the door, on the shelf,
        beside the window, under the stairs, in the drawer,
        in the {building}, near the {land}""",
    "side": "left, right, north, south, east, west",
    # when and how many
    "day": """monday, tuesday, wednesday, thursday, friday, saturday,
        sunday""",
    "month": """january, february, march, april, june, july, august,
        september, october, november, december""",
    "ordinal": """first, second, third, fourth, fifth, sixth, seventh,
        eighth, ninth, tenth, twelfth, twentieth""",
    "number": """two, three, four, five, six, seven, eight, nine, ten,
        eleven, twelve""",
    "tens": "twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety",
    "teen": """thirteen, fourteen, fifteen, sixteen, seventeen, eighteen,
        nineteen""",
    "many": """{number}, {teen}, {teen}, {tens}, {tens} {few},
        {few} hundred""",
    "few": "two, three, five, six, eight",
    "clock": """{number} o'clock, half past {number},
        quarter past {number}, {number} thirty""",
    "then": """yesterday, last {day}, this morning, last night, on {day},
        in {month}, last winter, last summer""",
    "soon": """tomorrow, tonight, next {day}, next week, on {day},
        in {month}, after breakfast, before dinner, after lunch""",
    "often": "always, never, sometimes, usually",
    "span": "minutes, hours, days, weeks, months",
    "unit": "kilometres, miles, steps",
    # what happens
    "did": """found, carried, painted, cleaned, repaired, watched, opened,
        borrowed, bought, sold, washed, dropped, lifted, noticed, packed,
        measured, polished, remembered, forgot, lost""",
    "do": """find, carry, paint, clean, repair, watch, open, borrow, buy,
        sell, wash, hide, bring, lift, pack, measure, polish, remember,
        forget, shut""",
    "went": """slept, waited, danced, sang, laughed, walked, jumped, rested,
        played, whispered, travelled, worked, wandered""",
    "go": """sleep, wait, dance, sing, laugh, walk, jump, swim, play,
        whisper, travel, work, stay, listen""",
    "doing": """sleeping, waiting, dancing, singing, laughing, walking,
        swimming, playing, reading, cooking, painting, whistling""",
    "how": """slowly, quickly, quietly, happily, carefully, suddenly,
        gently, together, again, loudly, alone, politely""",
    "cook": "cooked, tasted, ordered, shared, enjoyed, baked, served",
    "vehicle": "train, bus, ferry, boat, tram, aeroplane, taxi, lorry",
}

# The mark at the end gives the voice its melody; transcripts omit it.
FORMS: tuple[str, ...] = (
    # statements
    "{who} {did} the {look} {thing}.",
    "{who} {did} a {thing} {where}.",
    "{who} {did} the {thing} {then}.",
    "{who} {cook} the {food}.",
    "{who} {did} {number} {look} {things}.",
    "{who} {went} {how} {where}.",
    "{person} {went} {where} {then}.",
    "the {mood} {role} {went} {how}.",
    "the {adjective} {animal} {went} {where}.",
    "a {adjective} {animal} {went} {how}.",
    "the {animal} is {doing} {where}.",
    "the {role} and the {role} are {doing}.",
    "there is a {look} {thing} {spot}.",
    "there was a {animal} {spot}.",
    "your {thing} is {spot}.",
    "{who} {cook} {dish} with {dish}.",
    "the {food} and {food} were {taste}.",
    "{person} {often} {cook} {food} {where}.",
    "{who} will {do} the {thing} {soon}.",
    "i can't {do} the {look} {thing}.",
    "the {animal} didn't {go} {where}.",
    "i think the {animal} is {mood}.",
    "my {kin} has {many} {things}.",
    "{person} {went} {how}.",
    "they {cook} {taste} {food}.",
    "this {drink} is {taste}.",
    # numbers, clock and calendar
    "it's {clock} on {day}.",
    "{person} can {go} {how}.",
    "the {vehicle} leaves at {clock}.",
    "the {place} opens at {clock}.",
    "we will meet {where} at {clock}.",
    "the {place} is {many} {unit} away.",
    "{person} waited {many} {span}.",
    "{day} is the {ordinal} of {month}.",
    "{person} arrived on the {ordinal} of {month}.",
    "we {often} {do} the {ordinal} {thing}.",
    "she {often} reads {many} pages.",
    "the {ordinal} {vehicle} arrived {then}.",
    "that costs {few} dollars and {tens} cents.",
    "{many} {things} and {number} {things}.",
    # weather and travel
    "it was {weather} {where}.",
    "{day} will be {weather} and {weather}.",
    "the {sky} will begin {soon}.",
    "after the {sky} it was {weather}.",
    "turn {side} at the {place}.",
    "the {colour} {vehicle} goes {side} {soon}.",
    # questions
    "where is the {look} {thing}?",
    "is the {drink} {taste}?",
    "when does the {vehicle} reach the {place}?",
    "who {did} the {thing} {then}?",
    "how many {things} did {person} {do}?",
    "have you seen the {adjective} {animal}?",
    "do you like {dish} or {dish}?",
    "why is the {role} {doing} {where}?",
    "can you {do} the {thing}?",
    "is the {animal} {spot}?",
    "did {who} {do} the {thing}?",
    # commands
    "please {do} the {look} {thing}.",
    "give {them} the {look} {thing}.",
    "don't {do} the {thing} {spot}.",
    "let's {go} {where}.",
    "put the {food} {spot} please.",
    "please {go} {how} {where}.",
    "bring {them} {number} {look} {things}.",
    "show {them} the {colour} {animal}.",
)

_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z']+")
_PHRASES = {
    slot: tuple(" ".join(phrase.split()) for phrase in text.split(","))
    for slot, text in SLOTS.items()
}


def vocabulary() -> frozenset[str]:
    """Every word that the grammar can say."""
    lines = list(FORMS) + [p for slot in _PHRASES.values() for p in slot]
    text = _SLOT.sub(" ", " ".join(lines))
    # "an" is not in the grammar: it is what "a" becomes before a vowel.
    return frozenset({"AN", *(word.upper() for word in _WORD.findall(text))})


class SentenceMaker:
    """Draws sentences in which all words have their turn.

    The forms, and the phrases of a slot, are dealt like cards: shuffled, and
    shuffled anew when all have been dealt. Rare words are therefore as
    frequent as the grammar allows.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._decks: dict[str, list[str]] = {}

    def draw(self) -> str:
        """Draw one sentence."""
        sentence = self._deal("", FORMS)
        while "{" in sentence:
            sentence = _SLOT.sub(
                lambda slot: self._deal(slot[1], _PHRASES[slot[1]]), sentence
            )
        return re.sub(r"\ba (?=[aeiou])", "an ", sentence)

    def _deal(self, name: str, cards: tuple[str, ...]) -> str:
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(cards[i] for i in self._rng.permutation(len(cards)))
        return deck.pop()


def transcript(sentence: str) -> str:
    """The sentence as LibriSpeech would write it."""
    return " ".join(_WORD.findall(sentence.lower())).upper()


def draw_sentences(
    count: int, rng: np.random.Generator, taken: set[str]
) -> list[str]:
    """Draw sentences that nobody has said yet."""
    maker = SentenceMaker(rng)
    sentences = []
    while len(sentences) < count:
        sentence = maker.draw()
        if transcript(sentence) not in taken:
            taken.add(transcript(sentence))
            sentences.append(sentence)
    return sentences
