"""Names of the fictional worlds: two tokens each, and which split may use which combination.

Every split uses every token, but no two splits share a combination, so a name seen in evaluation was never seen in
training although both of its tokens were.
"""

from __future__ import annotations

import hashlib
from functools import cache

PERSON, FILM, BOOK, COMPANY, CITY, COUNTRY = "person", "film", "book", "company", "city", "country"
TYPES = (PERSON, FILM, BOOK, COMPANY, CITY, COUNTRY)

_SHARES = (("pretrain", 8), ("memory", 1), ("reward", 2), ("train", 3), ("development", 2), ("evaluation", 4))
"""Each split's share of all combinations, in twentieths; `memory` is the world that pretraining repeats."""

_FIRST = (
    "Ada Bram Cleo Dara Egon Faye Gero Hilda Ivo Jana Kai Lena Milo Nora Otto Pia Quin Rosa Sten Tara "
    "Ugo Vera Wim Xenia Yuri Zoe Alma Boris Carla Dirk Elsa Fritz Greta Hugo Inga Joris Katya Lars Mara Nils "
    "Olga Piet Romy Sven Thea Uwe Vito Wanda"
).split()
_LAST = (
    "Abbot Barlow Corvin Drake Ennis Falk Garner Holt Iverson Jessup Keller Lorne Mercer Norris Oakes Penrose "
    "Quill Rusk Sadler Tolliver Underhill Vance Wexler Yarrow Zeller Ames Birch Colby Dunmore Esker Flint Grimes "
    "Harrow Ingram Jarvis Kirby Lowell Marsh Nye Orton Pell Ravel Stroud Thorne Upton Vickers Wilder Yates"
).split()
_FILM_A = (
    "Silent Crimson Broken Golden Hidden Frozen Distant Burning Velvet Hollow Scarlet Midnight Fading Painted Restless "
    "Shattered Wandering Iron Amber Gentle Savage Lonely Electric Sunken"
).split()
_FILM_B = (
    "Harbor Mirror Garden Horizon Promise Lantern Orchard Empire River Window Carnival Voyage Shadow Letter Tower "
    "Compass Anthem Winter Ember Island Parade Canyon Whisper Harvest"
).split()
_BOOK_A = (
    "Paper Glass Salt Copper Winged Marble Seventh Borrowed Quiet Northern Secret Wooden Endless Bitter Moonlit Clever "
    "Forgotten Hungry Patient Woven Tidal Ashen Humble Radiant"
).split()
_BOOK_B = (
    "Atlas Bridge Clock Daughter Engine Fable Gate House Inventor Journal Key Ladder Map Nest Ocean Pilgrim Question "
    "Ring Sparrow Thread Umbrella Village Wheel Zephyr"
).split()
_COMPANY_A = (
    "Acron Belmar Corvex Dynar Elvion Fenwick Gravix Helion Intron Jaxon Kelvar Lumina Maxor Nexil Orbital Pylon "
    "Quantis Rivex Solari Tekton Ultrix Vantor Westar Zenith"
).split()
_COMPANY_B = (
    "Works Labs Group Motors Foods Textiles Studios Press Mills Energy Systems Airways Partners Brothers Holdings "
    "Instruments Pictures Media Trading Shipping Minerals Robotics Optics Designs"
).split()
_CITY_A = (
    "Port Fort Lake Mount San Saint Glen Bay Cape Old Upper Lower Little Grand Royal High Long Stone Green White Black "
    "Red Silver Fair"
).split()
_CITY_B = (
    "Velda Morin Tarsk Elora Bexley Calder Dorsa Emlyn Fosse Galen Hadley Isken Jorvik Kestrel Lunden Marrow Norvik "
    "Orsay Pravin Rostov Selby Tamsin Ulmar Vesper"
).split()
_COUNTRY_A = (
    "North South East West New Inner Outer Central Coastal Free United Greater Lesser Southern Eastern Western Ancient "
    "Modern Federal Alpine Desert Arctic Tropic Steppe"
).split()
_COUNTRY_B = (
    "Arvonia Belgrava Cordania Drovia Estmark Faldor Gorania Halvia Ilmaria Jovania Kartova Lodria Mirova Nordia "
    "Ostania Pelmar Querra Rovania Sardova Tylonia Ulvania Vardia Wolmar Zarnia"
).split()

_PARTS: dict[str, tuple[list[str], list[str]]] = {
    PERSON: (_FIRST, _LAST),
    FILM: (_FILM_A, _FILM_B),
    BOOK: (_BOOK_A, _BOOK_B),
    COMPANY: (_COMPANY_A, _COMPANY_B),
    CITY: (_CITY_A, _CITY_B),
    COUNTRY: (_COUNTRY_A, _COUNTRY_B),
}


def split_of(key: str) -> str:
    """The split that owns `key` (a name, or a tuple of numbers as text)."""
    slot = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % 20
    for split, share in _SHARES:
        if slot < share:
            return split
        slot -= share
    raise AssertionError("shares sum to twenty")


@cache
def names(entity_type: str, split: str) -> tuple[str, ...]:
    """All names of one type that `split` owns, in a fixed order."""
    first, second = _PARTS[entity_type]
    return tuple(f"{a} {b}" for a in first for b in second if split_of(f"{a} {b}") == split)


def words() -> list[str]:
    """Every word that a name can hold: part of an embedded model's vocabulary."""
    return [word for parts in _PARTS.values() for part in parts for word in part]


def first_names() -> list[str]:
    """First names, which word problems use without a last name."""
    return list(_FIRST)
