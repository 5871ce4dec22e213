"""The words of a town: short names that nobody has, and small sets of values."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Split a line into words."""
    return tuple(text.split())


WOMEN = words(
    "Alda Brena Cilla Dorva Elka Fenna Gilda Hesta Ilva Jora Kessa Lunda Mirel Nolva Orla Pella Runa Selva Tamsa Ulda "
    "Vesna Wenda Yelva Zilla Anka Belva Corla Delna Effa Gretna Halva Imke"
)
MEN = words(
    "Arlo Borin Calder Dovan Ebrin Falko Garron Hobin Ivar Jorun Kelvo Lodan Marn Nestor Odrin Pavo Quill Rolf Sorin "
    "Tavik Ulmo Varn Wimbo Yoren Zeb Alvo Brand Corvin Durk Egon Fargo Gundo"
)
FIRST_SYLLABLES = words("Be Cor Da El Fa Gri Hal Jo Ka Lo Mar Ne Ol Pe Qua Ri Sa Tor U Ve Wil Ya Zo Bra")
MIDDLE_SYLLABLES = words("bi da fel gu len ma no pi ra sto ti vu lo ne")
LAST_SYLLABLES = {"women": words("va na ra dette line sha mia tha"), "men": words("ric mund bert dor nak lin thos gar")}
"""syllables of the names of strangers, who live somewhere else"""

TOWNS = ("Larkford", "Elmbury", "Fenmoor", "Oldmere", "Tarnby", "Wickham", "Ashdown", "Millstead")

TRADES = words("baker miller smith weaver potter fisher tailor doctor teacher gardener printer painter shepherd hunter")
STREETS = (
    "Oak Street",
    "Mill Lane",
    "River Road",
    "Hill Street",
    "Bridge Lane",
    "Market Row",
    "Well Street",
    "Castle Road",
    "Garden Lane",
    "Station Road",
)
FOODS = words("soup bread cheese honey plums pears fish beans nuts eggs porridge mushrooms apples carrots")
PETS = words("cat dog goat hen parrot rabbit duck donkey")
PET_NAMES = words("Pip Tuft Bramble Socks Fig Moss Clover Rusty Button Pepper Biscuit Twig Puddle Thimble Waffle")
COLOURS = words("red green blue yellow white black brown grey")
AGES = words("twenty thirty forty fifty sixty seventy eighty ninety")
PLACES = words("market mill river bridge well tower forest harbour")

ATTRIBUTES = ("trade", "street", "food", "pet", "pet_name", "friend", "door", "age")
"""facts that the town book records of everybody"""
VALUES: dict[str, tuple[str, ...]] = {
    **{"trade": TRADES, "street": STREETS, "food": FOODS, "pet": PETS},
    **{"pet_name": PET_NAMES, "door": COLOURS, "age": AGES},
}
"""values of each attribute; those of "friend" are the town's people"""

UNRECORDED: dict[str, tuple[str, ...]] = {
    "favourite song": ("the river song", "the song of the hill", "the long song"),
    "birthday": ("in spring", "in summer", "in winter"),
    "lucky number": ("three", "seven", "nine"),
    "shoe size": ("small", "large", "very large"),
    "first wish": ("a boat", "a new coat", "a small house"),
    "favourite game": ("chess", "cards", "hide and seek"),
    "secret dream": ("a big ship", "a long journey", "a warm summer"),
    "favourite book": ("the blue book", "the book of songs", "a book about ships"),
}
"""attributes that are recorded of nobody, and values that a guess would give"""
