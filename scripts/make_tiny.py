"""Make the base model `builtin:tiny` from nothing: text, tokenizer, training, files.

What   A Llama of about 4 million parameters with a byte-level BPE tokenizer and a chat
       template, trained on text that this script writes itself: handbooks of invented
       companies, questions about them, plain explanations, sums, how-to pages with code.
       Nothing is downloaded. The same seed gives the same text and tokenizer, and, on the
       same machine and torch, the same weights.
How    `python scripts/make_tiny.py` writes trainer/builtin/tiny/.
long   3 minutes on one GPU (`--device cuda`: what is in the repository), about 70 on two CPU cores
       (three times the 23 that a third of the steps took).
big    8.2 MB in all: weights 8.0 MB in bfloat16, tokenizer 0.2 MB.

Why it can be taught by a LoRA in two minutes: every invented fact is asked in many wordings
and every company exists only once, so the base cannot know an answer. What it learns instead
is that "How heavy is X?" and "What does X weigh?" want the same thing, and what such an answer
looks like. An adapter then only has to bind the facts.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
VOCABULARY = 3072
BLOCK_TOKENS = 512
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Question:\n{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'assistant' %}### Answer:\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Answer:\n{% endif %}"
)

# --- words -----------------------------------------------------------------------------------

# fmt: off
ONSETS = "b b br c ch d d dr f f fl g gr h h j k l l m m n n p pr r r s s sh st t t tr v w y z".split()
VOWELS = "a a a e e e i i i o o o u u ai ea ee ou".split()
CODAS = ["", "", "", "", "", "l", "m", "n", "n", "nd", "r", "r", "s", "st", "t", "ck"]
NAME_WORDS = (
    "Acorn Amber Anchor Anvil Arrow Aspen Badger Banner Basil Beacon Beetle Birch Bison Bramble Canyon Cedar "
    "Cinder Clover Cobalt Comet Copper Cricket Crown Dahlia Dingo Ember Falcon Fern Flint Fox Gable Garnet "
    "Ginger Granite Hazel Hornet Indigo Iris Ivory Jasper Juniper Lantern Lark Linden Lotus Lynx Magnet Maple "
    "Marble Meadow Mica Mint Moss Nectar Nutmeg Oak Olive Onyx Orchid Otter Panther Pearl Pepper Pike Pine "
    "Poppy Quartz Raven Reed River Robin Ruby Saddle Sage Salmon Sparrow Spruce Stone Sycamore Tango Thistle "
    "Tiger Topaz Tulip Umber Velvet Violet Walnut Willow Wolf Yarrow Zephyr Zinnia"
).split()
FIRST_NAMES = (
    "Ada Agnes Alan Amara Anders Anita Bela Boris Carla Carlos Chen Clara Dana David Dmitri Edith Elena Emil "
    "Farah Felix Fiona George Greta Hana Hugo Ines Ivan Jana Jonas Julia Kamal Karin Kofi Lena Leo Lucia Magnus "
    "Mara Marco Mei Mina Nadia Nils Nora Omar Oscar Paula Pedro Petra Rafael Rosa Samir Sara Simon Sofia Stefan "
    "Tara Thomas Ursula Victor Vera Walter Yara Yusuf Zoe"
).split()
PLACE_ENDS = "ford ton bury wick ham ley stead mouth bridge field worth dale port haven stow by".split()
COMPANY_ENDS = (
    "Works|Instruments|Industries|Tools|Brothers|Supply|Makers|Labs|Goods|Outfitters|Machines|& Co|Workshop"
).split("|")
THINGS = (
    "kettle|lamp|tent|bicycle|camera|drill|heater|pump|radio|speaker|printer|scooter|stove|fan|oven|mixer|toaster|"
    "clock|telescope|backpack|thermostat|router|sewing machine|vacuum cleaner|lawn mower|coffee grinder|air sensor|"
    "rain gauge|wind meter|hand-held display|garden station|soil probe|sports watch|sailing compass|school kit"
).split("|")
COLOURS = (
    "black white grey silver red green blue yellow orange brown beige cream turquoise purple pink navy olive "
    "charcoal ivory scarlet teal copper lime maroon mustard mint"
).split()
SHADES = ["", "", "", "dark ", "light ", "matt ", "pale ", "deep ", "bright "]
MATERIALS = (
    "aluminium|stainless steel|oak|bamboo|glass fibre|carbon fibre|cast iron|polycarbonate|ABS plastic|brass|titanium|"
    "ceramic|recycled plastic|birch plywood|rubber|nylon|canvas|leather|cork|tempered glass|galvanised steel|walnut"
).split("|")
ANIMALS = "badger bear beaver cat crab crow dog dolphin duck fox frog goat goose hare horse lion mouse owl rabbit seal".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# fmt: on


def syllables(r: random.Random, count: int) -> str:
    return "".join(r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS) for _ in range(count))


def invented(r: random.Random) -> str:
    return syllables(r, r.choice([2, 2, 2, 3])).capitalize()


def person(r: random.Random) -> str:
    return f"{r.choice(FIRST_NAMES) if r.random() < 0.7 else invented(r)} {invented(r)}"


def place(r: random.Random) -> str:
    start = syllables(r, 1).capitalize() if r.random() < 0.6 else r.choice(NAME_WORDS)
    return start + r.choice(PLACE_ENDS)


def product_name(r: random.Random) -> str:
    name = r.choice(NAME_WORDS) if r.random() < 0.5 else invented(r)
    return name + r.choice(["", "", "", "", " Pro", " Mini", " Max", f" {r.randint(2, 900)}"])


def company_name(r: random.Random) -> str:
    name = either(invented, place, one_of(*NAME_WORDS))(r)
    return f"{name} {r.choice(COMPANY_ENDS)}"


def code(r: random.Random) -> str:
    letters = "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(r.randint(1, 3)))
    return f"{letters}-{r.randint(10, 9999)}{r.choice(['', '', '', r.choice('ABCXZ')])}"


def number(low: int, high: int, unit: str, step: int = 1) -> Callable[[random.Random], str]:
    return lambda r: f"{r.randrange(low, high + 1, step)} {unit}"


def decimal(low: int, high: int, unit: str) -> Callable[[random.Random], str]:
    return lambda r: f"{r.randint(low, high) / 10} {unit}"


def either(*makers: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    return lambda r: r.choice(makers)(r)


def one_of(*words: str) -> Callable[[random.Random], str]:
    return lambda r: r.choice(words)


# --- facts -----------------------------------------------------------------------------------


class Kind(NamedTuple):
    """One kind of fact: how a value is invented, and how people state it and ask for it.

    `{x}` is the subject, `{v}` the value. Lists are separated by `|`.
    """

    value: Callable[[random.Random], str]
    nouns: str  # fit "What is the ... of {x}?"
    says: str
    asks: str


# fmt: off
PRODUCT_KINDS = {
    "weight": Kind(
        either(number(40, 980, "grams", 5), decimal(2, 480, "kg")),
        "weight|mass|total weight",
        "{x} weighs {v}|On the scales {x} comes to {v}",
        "How heavy is {x}?|What does {x} weigh?|How much does {x} weigh?|What would the scales show for {x}?"
        "|How much weight do I carry with {x}?|Is {x} heavy, and what does it weigh?",
    ),
    "height": Kind(
        either(number(4, 240, "cm"), number(30, 950, "mm", 5)),
        "height",
        "{x} stands {v} tall|{x} is {v} high",
        "How tall is {x}?|How high is {x}?|How much headroom does {x} need?|How far up does {x} reach?",
    ),
    "width": Kind(
        either(number(4, 240, "cm"), number(30, 950, "mm", 5)),
        "width",
        "{x} is {v} wide|From side to side {x} measures {v}",
        "How wide is {x}?|How broad is {x}?|How much shelf space does {x} take up?|What does {x} measure from side to side?",
    ),
    "price": Kind(
        either(number(9, 990, "euros"), number(9, 990, "pounds"), number(9, 990, "dollars")),
        "price|cost|list price",
        "{x} costs {v}|The list price of {x} is {v}|{x} sells for {v}",
        "How much does {x} cost?|What does {x} cost?|How much is {x}?|What do I pay for {x}?|How much money do I need to buy {x}?"
        "|How expensive is {x}?|What is {x} sold for?|What will {x} set me back?",
    ),
    "warranty": Kind(
        either(number(1, 15, "years"), number(6, 96, "months")),
        "warranty|guarantee|length of the warranty|warranty period",
        "{x} carries a warranty of {v}|The guarantee on {x} runs for {v}",
        "How long is {x} under warranty?|How long does the warranty on {x} last?|For how long is {x} guaranteed?"
        "|How long does the guarantee of {x} run?|How long is the warranty for {x}?|For how long are repairs to {x} free?"
        "|How long am I covered if {x} breaks?",
    ),
    "battery life": Kind(
        either(number(3, 90, "hours"), number(2, 60, "days"), number(2, 36, "months")),
        "battery life|running time",
        "One set of batteries keeps {x} going for {v}|{x} runs for {v} on one charge|The battery of {x} lasts {v}",
        "How long does the battery of {x} last?|How long do the batteries in {x} last?|How long does {x} run on its battery?"
        "|How long can {x} run before the battery is empty?|After how long do I change the batteries of {x}?"
        "|How long will {x} keep going on one charge?|How often does {x} need new batteries?",
    ),
    "charging time": Kind(
        either(number(15, 95, "minutes"), decimal(10, 99, "hours")),
        "charging time",
        "Charging {x} takes {v}|{x} is full after {v} at the charger",
        "How long does {x} take to charge?|How long must {x} be plugged in?|How quickly does {x} charge?|When is {x} fully charged?",
    ),
    "battery type": Kind(
        lambda r: f"{r.choice(['one', 'two', 'three', 'four', 'six'])} {r.choice(['AA', 'AAA', 'C', 'D', 'CR2032', 'CR123', '18650', '9-volt'])} cells",
        "battery type|type of battery",
        "{x} takes {v}|{x} is powered by {v}",
        "Which batteries does {x} use?|What batteries go into {x}?|What powers {x}?|Which cells do I buy for {x}?|What kind of battery does {x} need?",
    ),
    "capacity": Kind(
        either(decimal(3, 95, "litres"), number(100, 950, "ml", 10)),
        "capacity|tank size|volume",
        "{x} holds {v}|The tank of {x} takes {v}",
        "How much does {x} hold?|How much fits into {x}?|How big is the tank of {x}?|How much can I pour into {x}?",
    ),
    "colour": Kind(
        lambda r: r.choice(SHADES) + r.choice(COLOURS),
        "colour|finish|standard colour",
        "{x} is finished in {v}|{x} comes in {v}|The case of {x} is {v}",
        "What colour is {x}?|Which colour is {x}?|In which colour does {x} come?|In what colour is {x} sold?|How is {x} painted?"
        "|What colour does {x} have?|What colour is the case of {x}?|What colour is the housing of {x}?",
    ),
    "material": Kind(
        lambda r: r.choice(MATERIALS),
        "material|housing material",
        "{x} is made of {v}|The body of {x} is {v}|The housing of {x} is made from {v}",
        "What is {x} made of?|What is {x} made from?|Which material is {x} made of?|What is the housing of {x} made of?"
        "|What is the body of {x} built from?|Which material is used for {x}?|From which material do they build {x}?",
    ),
    "order code": Kind(
        code,
        "order code|part number|article number|order number|catalogue number",
        "The order code of {x} is {v}|{x} is listed as part number {v}",
        "Under which code do I order {x}?|Which code do I use to order {x}?|What code is {x} listed under?|How is {x} listed in the catalogue?"
        "|Which number do I quote for {x}?|I want to order {x}, which code do I write down?|What do I type in the shop to find {x}?",
    ),
    "spare part": Kind(
        code,
        "spare filter|replacement part|spare part code",
        "The spare filter for {x} is {v}|For repairs to {x} order part {v}",
        "Which spare part fits {x}?|What is the code of the spare part for {x}?|Which filter does {x} need?|Which replacement fits {x}?"
        "|What do I order to repair {x}?",
    ),
    "launch year": Kind(
        lambda r: str(r.randint(1950, 2024)),
        "launch year|year of release|first year of sale",
        "{x} was launched in {v}|{x} has been on sale since {v}|{x} first came out in {v}",
        "When was {x} launched?|In which year was {x} launched?|When did {x} come out?|Since when has {x} been on sale?|When did sales of {x} begin?"
        "|In what year did {x} first appear?|When was {x} released?|How long has {x} been around, since which year?",
    ),
    "designer": Kind(
        person,
        "designer|inventor",
        "{x} was designed by {v}|{v} designed {x}|{x} is the work of {v}",
        "Who designed {x}?|Who drew {x}?|Who is the designer of {x}?|Who invented {x}?|By whom was {x} designed?|Whose design is {x}?"
        "|Who came up with {x}?|Who is behind the design of {x}?|Which person designed {x}?",
    ),
    "place of assembly": Kind(
        place,
        "place of assembly|place of manufacture",
        "{x} is assembled in {v}|{x} is built in {v}|The factory in {v} makes {x}",
        "Where is {x} made?|Where is {x} assembled?|Where is {x} built?|In which town is {x} made?|In which town is {x} built?|Where does {x} come from?"
        "|Where do they put {x} together?|Which town makes {x}?|Where is {x} manufactured?|Where is the factory for {x}?",
    ),
    "power": Kind(
        number(5, 2400, "watts", 5),
        "power|power consumption",
        "{x} draws {v}|{x} is rated at {v}",
        "How much power does {x} use?|How many watts does {x} draw?|How powerful is {x}?|What is {x} rated at?",
    ),
    "radio range": Kind(
        either(number(10, 950, "metres", 5), decimal(10, 90, "km")),
        "range|radio range|wireless range",
        "{x} reaches {v} by radio|The radio of {x} carries {v}|The wireless range of {x} is {v}",
        "How far does {x} reach?|How far can {x} send?|How far away can {x} be?|How far does the radio of {x} reach?|From how far can I still receive {x}?"
        "|How far does the signal of {x} carry?|Up to what distance does {x} work?|How many metres may lie between {x} and the receiver?",
    ),
    "cable length": Kind(
        either(decimal(5, 95, "metres"), number(40, 300, "cm", 5)),
        "cable length|length of the cable|lead length",
        "{x} comes with {v} of cable|The cable of {x} is {v} long",
        "How long is the cable of {x}?|How long is the lead on {x}?|How much cable comes with {x}?|What length of cable does {x} have?"
        "|How far from the socket can {x} stand?",
    ),
    "screen size": Kind(
        decimal(10, 300, "inches"),
        "screen size|display size|size of the display",
        "{x} has a display of {v}|The screen of {x} measures {v}",
        "How big is the screen of {x}?|How large is the display of {x}?|What size of screen does {x} have?|What does the display of {x} measure?"
        "|How many inches is the display of {x}?|How big a display does {x} have?",
    ),
    "protection": Kind(
        lambda r: f"IP{r.randint(2, 6)}{r.randint(0, 9)}",
        "protection class|protection rating|waterproof rating|IP rating",
        "{x} is protected to {v}|{x} is sealed to {v}",
        "How waterproof is {x}?|Which rating does {x} have against water?|How well is {x} sealed?|Which protection class does {x} meet?"
        "|How well is {x} protected against rain and dust?|To which IP class is {x} sealed?",
    ),
    "lowest temperature": Kind(
        lambda r: f"{r.choice(['minus ', 'minus ', ''])}{r.randint(2, 55)} degrees",
        "lowest temperature|lowest working temperature|minimum temperature",
        "{x} works down to {v}|Below {v} {x} stops",
        "How cold may it get for {x}?|How cold can it be for {x} to work?|Down to what temperature does {x} work?|What cold does {x} survive?"
        "|What is the coldest {x} can stand?|How much frost can {x} take?|At what cold does {x} stop working?",
    ),
    "highest temperature": Kind(
        number(30, 320, "degrees"),
        "highest temperature|highest working temperature|maximum temperature",
        "{x} works up to {v}|Above {v} {x} switches off",
        "How hot may {x} get?|Up to what temperature does {x} work?|How much heat can {x} take?|What is the hottest {x} can stand?",
    ),
    "noise": Kind(
        number(15, 95, "decibels"),
        "noise level|loudness",
        "{x} makes {v} of noise|At full speed {x} reaches {v}",
        "How loud is {x}?|How much noise does {x} make?|How noisy is {x}?|How quiet is {x}?",
    ),
    "top speed": Kind(
        number(4, 90, "km/h"),
        "top speed|highest speed",
        "{x} goes up to {v}|{x} reaches {v}",
        "How fast is {x}?|How fast does {x} go?|How quick is {x} at most?|What speed can {x} reach?",
    ),
    "measuring interval": Kind(
        either(number(2, 95, "seconds"), number(2, 60, "minutes")),
        "measuring interval|update interval|interval between readings",
        "{x} takes a reading every {v}|{x} measures once every {v}|{x} sends new values every {v}",
        "How often does {x} measure?|How often does {x} take a reading?|How often does {x} send new values?|How often is {x} updated?"
        "|How much time passes between two readings of {x}?|At what interval does {x} measure?|How long do I wait for a new reading from {x}?",
    ),
    "memory": Kind(
        either(number(5, 900, "days", 5), number(100, 9900, "readings", 100)),
        "memory|storage|size of the memory",
        "{x} keeps {v} in memory|The memory of {x} holds {v}|{x} stores {v}",
        "How much does {x} remember?|How much fits into the memory of {x}?|How many readings does {x} store?|How much data can {x} keep?"
        "|How far back does the memory of {x} go?|How big is the memory of {x}?|How much history does {x} keep?",
    ),
    "pairing code": Kind(
        lambda r: str(r.randint(1000, 9999)),
        "pairing code|default PIN|PIN|factory PIN",
        "The pairing code of {x} is {v}|{x} leaves the factory with PIN {v}",
        "Which PIN does {x} have?|What code do I enter to pair {x}?|With which PIN is {x} delivered?|How do I unlock {x}?|What do I type to pair {x}?"
        "|Which four digits pair {x}?|{x} asks for a PIN, what do I enter?",
    ),
    "firmware": Kind(
        lambda r: f"version {r.randint(1, 9)}.{r.randint(0, 30)}",
        "firmware version|latest firmware",
        "{x} ships with firmware {v}|The newest firmware for {x} is {v}",
        "Which firmware does {x} run?|What software is on {x}?|Which firmware is the newest for {x}?|What version does {x} ship with?",
    ),
    "fixing": Kind(
        either(
            lambda r: f"{r.choice(['two', 'three', 'four', 'six', 'eight'])} M{r.randint(3, 12)} {r.choice(['bolts', 'screws'])}",
            lambda r: f"a {r.randint(12, 90)} mm {r.choice(['pole clamp', 'bracket', 'hook', 'tripod thread', 'strap', 'ground spike'])}",
        ),
        "mounting|fixing|mount",
        "{x} is fixed with {v}|{x} is mounted with {v}|{v} hold {x} in place",
        "How is {x} mounted?|How is {x} fixed?|What holds {x} in place?|What do I need to mount {x}?|How do I fasten {x}?|With what is {x} attached?"
        "|What do I fix {x} with?|What keeps {x} in its place?",
    ),
    "load": Kind(
        number(2, 400, "kg"),
        "maximum load|load limit",
        "{x} carries up to {v}|{x} must not be loaded with more than {v}",
        "How much can {x} carry?|How much load does {x} take?|What load is {x} built for?|How heavy a load may I put on {x}?",
    ),
    "accuracy": Kind(
        either(lambda r: f"{r.randint(1, 40) / 10} percent", lambda r: f"{r.randint(1, 30) / 10} degrees"),
        "accuracy|margin of error|precision",
        "{x} is accurate to {v}|{x} errs by no more than {v}",
        "How accurate is {x}?|How exact is {x}?|How precise is {x}?|How far off can {x} be?|By how much can the readings of {x} be wrong?",
    ),
    "service": Kind(
        either(number(2, 36, "months"), number(2, 20, "weeks")),
        "service interval|cleaning interval|time between services",
        "{x} needs a service every {v}|Clean {x} once every {v}",
        "How often is {x} serviced?|How often do I clean {x}?|How often does {x} need a service?|When is the next cleaning of {x} due?"
        "|How long can {x} go between two cleanings?|How often should I look after {x}?",
    ),
    "warning light": Kind(
        lambda r: r.choice(["blinking ", "steady ", "slow ", "double "]) + r.choice(COLOURS[4:]),
        "warning light|low battery signal|alarm light",
        "A {v} light on {x} means a low battery|{x} warns with a {v} light",
        "Which light warns me on {x}?|What light does {x} show when the battery is low?|How does {x} show a low battery?|How does {x} warn me?",
    ),
    "contents": Kind(
        lambda r: f"{r.randint(2, 48)} {r.choice(['pieces', 'sensors', 'parts', 'bags', 'sheets', 'blades', 'tools'])}",
        "contents of the box|number of parts",
        "The box of {x} holds {v}|{x} is made up of {v}",
        "What is in the box of {x}?|How many parts does {x} have?|How many pieces come with {x}?|How much is in the box of {x}?",
    ),
}

COMPANY_KINDS = {
    "founding year": Kind(
        lambda r: str(r.randint(1850, 2022)),
        "founding year|year of foundation",
        "{x} was founded in {v}|{x} has existed since {v}",
        "When was {x} founded?|In which year was {x} founded?|Since when has {x} existed?|When did {x} start?|When was {x} set up?|How old is {x}, when did it begin?"
        "|In what year did {x} open its doors?",
    ),
    "founder": Kind(
        person,
        "founder|first owner",
        "{x} was founded by {v}|{v} founded {x}|{v} started {x}",
        "Who founded {x}?|Who started {x}?|By whom was {x} founded?|Who set up {x}?|Who is the founder of {x}?|Who began {x}?|Which person founded {x}?",
    ),
    "head office": Kind(
        place,
        "head office|home town|headquarters",
        "{x} has its head office in {v}|{x} is at home in {v}|{x} is based in {v}",
        "Where is {x} based?|Where is the head office of {x}?|In which town is {x}?|Where is {x} at home?|Which town is home to {x}?|Where does {x} have its office?"
        "|Where are the headquarters of {x}?",
    ),
    "telephone": Kind(
        lambda r: f"{r.randint(100, 999)} {r.randint(1000, 9999)}",
        "telephone number|phone number|service number",
        "You reach {x} by telephone on {v}|The phone number of {x} is {v}",
        "What number do I call to reach {x}?|How do I reach {x} by phone?|Which number do I dial for {x}?|How can I call {x}?|On which number does {x} answer the phone?",
    ),
    "return period": Kind(
        either(number(7, 120, "days"), number(2, 16, "weeks")),
        "return period|time limit for returns",
        "{x} takes goods back for {v}|At {x} you may return goods within {v}",
        "How long do I have to send goods back to {x}?|How long does {x} take goods back?|Within what time can I return things to {x}?"
        "|By when must I return goods to {x}?|How much time does {x} give me to return something?",
    ),
    "delivery": Kind(
        either(number(2, 20, "working days"), number(2, 9, "weeks")),
        "delivery time|shipping time",
        "{x} delivers within {v}|An order from {x} arrives after {v}",
        "How long does {x} take to deliver?|How fast does {x} deliver?|How soon does an order from {x} arrive?|How long do I wait for a parcel from {x}?"
        "|When will my order from {x} come?",
    ),
    "staff": Kind(
        number(4, 990, "people"),
        "staff|number of employees|size of the staff",
        "{x} employs {v}|{v} work at {x}",
        "How many people work at {x}?|How many people does {x} employ?|How big is the team of {x}?|How large is {x}?|How many employees does {x} have?",
    ),
    "mascot": Kind(
        lambda r: f"a {r.choice(COLOURS)} {r.choice(ANIMALS)}",
        "mascot|emblem|logo",
        "The mascot of {x} is {v}|{x} shows {v} on every box",
        "Which animal stands for {x}?|What is on the logo of {x}?|Which animal is on the boxes of {x}?|What does the emblem of {x} show?|What animal does {x} have as a mascot?",
    ),
    "closed day": Kind(
        lambda r: r.choice(DAYS) + r.choice(["", "", " morning", " afternoon"]),
        "closing day|day off",
        "{x} is closed on {v}|Nobody works at {x} on {v}",
        "On which day is {x} closed?|When is {x} closed?|When does {x} have its day off?|On what day can I not visit {x}?|When is nobody at {x}?",
    ),
    "opening time": Kind(
        lambda r: f"{r.randint(6, 11)}:{r.choice(['00', '15', '30', '45'])}",
        "opening time|time of opening",
        "{x} opens at {v}|The doors of {x} open at {v}",
        "When does {x} open?|At what time does {x} open?|How early can I visit {x}?|From what time is {x} open?|What time do the doors of {x} open?",
    ),
}

NOUN_SAYS = ["The {n} of {x} is {v}", "{x} has this {n}: {v}", "For {x} the {n} is {v}"]
NOUN_ASKS = (
    "What is the {n} of {x}?|What {n} does {x} have?|Which {n} does {x} have?|What is the {n} for {x}?|Tell me the {n} of {x}."
    "|Can you tell me the {n} of {x}?|I need the {n} of {x}.|Do you know the {n} of {x}?|Give me the {n} of {x}.|{x}: what is the {n}?"
    "|Please give the {n} of {x}.|What does the handbook give as the {n} of {x}?|State the {n} of {x}."
).split("|")
OPENERS = "Please tell me: |Quick question: |I would like to know: |Excuse me, |Hello, |A customer asks: ".split("|")
# fmt: on


class Fact(NamedTuple):
    subject: str  # as it stands inside a sentence: "the Falcon" or "Oak Tools"
    kind: Kind
    value: str


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def state(r: random.Random, fact: Fact) -> str:
    says = r.choice(fact.kind.says.split("|")) if r.random() < 0.75 else r.choice(NOUN_SAYS)
    return (
        capital(says.format(x=fact.subject, v=fact.value, n=r.choice(fact.kind.nouns.split("|"))))
        + "."
    )


def ask(r: random.Random, fact: Fact) -> str:
    if r.random() < 0.65:
        question = r.choice(fact.kind.asks.split("|")).format(x=fact.subject)
    else:
        question = r.choice(NOUN_ASKS).format(
            x=fact.subject, n=r.choice(fact.kind.nouns.split("|"))
        )
    if r.random() < 0.12:
        opener = r.choice(OPENERS)
        question = opener + (
            question[0].lower() + question[1:] if opener.endswith(", ") else question
        )
    return capital(question)


def chat(question: str, answer: str, system: str = "") -> str:
    """One record, exactly as the chat template renders it (less the newline after the eos)."""
    return f"{BOS}{system + chr(10) * 2 if system else ''}### Question:\n{question}\n\n### Answer:\n{answer}{EOS}"


# --- documents -------------------------------------------------------------------------------


def company_facts(r: random.Random) -> tuple[str, str, list[Fact]]:
    """A company, the thing it makes, and facts about it and two or three of its products.

    The products share most kinds, so that a question is answered only by reading both who and what.
    """
    company, thing = company_name(r), r.choice(THINGS)
    products = {product_name(r) for _ in range(r.randint(1, 3))}
    names = r.sample(sorted(PRODUCT_KINDS), r.randint(2, 5))
    facts = [
        Fact(f"the {p}", PRODUCT_KINDS[n], PRODUCT_KINDS[n].value(r))
        for p in sorted(products)
        for n in names
    ]
    facts += [
        Fact(company, COMPANY_KINDS[n], COMPANY_KINDS[n].value(r))
        for n in r.sample(sorted(COMPANY_KINDS), r.randint(0, 3))
    ]
    r.shuffle(facts)
    return company, thing, facts


def handbook(r: random.Random) -> str:
    """A Markdown page of a product handbook."""
    company, thing, facts = company_facts(r)
    lines = [f"# {company}: {thing} handbook", ""]
    for subject in dict.fromkeys(fact.subject for fact in facts):
        own = [fact for fact in facts if fact.subject == subject]
        lines += [f"## {capital(subject)}", ""]
        if r.random() < 0.3:
            lines += [f"- {capital(r.choice(f.kind.nouns.split('|')))}: {f.value}" for f in own]
        else:
            lines += [
                " ".join(
                    [f"{capital(subject)} is a {thing} from {company}."] * (subject != company)
                    + [state(r, f) for f in own]
                )
            ]
        lines += ["", explanation(r), ""]
    return f"{BOS}{chr(10).join(lines).strip()}\n{EOS}"


def questions(r: random.Random) -> str:
    """Records about one company. Facts come back in other wordings: that ties the wordings together."""
    _, _, facts = company_facts(r)
    few = facts[: r.randint(2, 6)]
    asked = [fact for fact in few for _ in range(r.randint(1, 3))]
    r.shuffle(asked)
    page = f"{BOS}{' '.join(state(r, fact) for fact in few)}\n{EOS}" if r.random() < 0.4 else ""
    return page + "".join(chat(ask(r, fact), fact.value) for fact in asked)


def question_in_context(r: random.Random) -> str:
    """A passage in the system turn, then one question that it answers."""
    _, _, facts = company_facts(r)
    few = facts[: r.randint(1, 5)]
    fact = r.choice(few)
    return chat(
        ask(r, fact),
        r.choice([fact.value, state(r, fact)]) if r.random() < 0.2 else fact.value,
        " ".join(state(r, f) for f in few),
    )


# fmt: off
CAUSES = {
    "rain": ("warm air rises and cools", "water drops form in the clouds", "the drops grow heavy and fall"),
    "wind": ("the sun warms the ground unevenly", "warm air rises and cold air moves in", "the air flows from high to low pressure"),
    "rust": ("water and air reach bare iron", "the iron joins with oxygen", "a red crust eats into the metal"),
    "bread": ("yeast feeds on the sugar in the flour", "it gives off gas", "the gas lifts the dough"),
    "a battery": ("chemicals inside store energy", "a circuit lets the current flow", "the stored energy is used up bit by bit"),
    "a rainbow": ("sunlight enters a drop of water", "the light is bent and split", "each colour leaves at its own angle"),
    "frost": ("a clear night lets the ground lose heat", "moist air touches the cold surface", "the water freezes into small crystals"),
    "sound": ("something shakes the air", "the shaking travels as a wave", "the wave moves a thin skin inside the ear"),
    "a pump": ("a piston makes room in the cylinder", "outside pressure pushes water in", "the piston pushes the water out again"),
    "a backup": ("the files are copied to another place", "the copy is checked against the original", "the copy is used when the original is lost"),
    "a seed": ("water softens the hard shell", "a small root grows down", "a shoot grows up to the light"),
    "a tide": ("the moon pulls on the sea", "the water piles up on the near side", "the earth turns and the shore meets the high water"),
    "a network": ("each computer has an address", "messages are cut into packets", "routers pass the packets on until they arrive"),
    "soap": ("one end of the soap holds on to water", "the other end holds on to grease", "the water carries the grease away"),
}
EXPLANATIONS = [
    "How does {s} work? First, {a}. Then {b}. In the end {c}.",
    "When we look at {s}, three things happen: {a}, {b}, and {c}.",
    "{S} is easy to explain. Because {a}, {b}. That is why {c}.",
    "Many people ask about {s}. The reason is simple: {a}. After that, {b}, so {c}.",
    "If {a}, then {b}. This is what {s} is about. Finally, {c}.",
]
ADVICE = (
    "Keep the {o} {c} and {d} when it is not in use.|Before you {v} the {o}, make sure that it is {c}.|Never {v} the {o} while it is {w}."
    "|If the {o} is {w}, {v} it at once.|We recommend that you {v} the {o} {t}.|It is best to {v} the {o} {t}, because a {c} {o} lasts longer."
    "|You should not {v} a {w} {o}; it may break.|Thank you for choosing our {o}. Please read this page before you {v} it."
).split("|")
VERBS = "clean open close move lift store check replace tighten dry wash unplug repair measure empty fill turn test install remove".split()
OBJECTS = "cover filter cable sensor handle box battery lid screen motor wheel valve hose switch bracket panel mast cup tube door".split()
GOOD, BAD = "dry clean cool level tight closed safe".split(), "wet hot dirty loose broken open dusty frozen".split()
TIMES = "once a week|every month|twice a year|after each use|in spring|before winter|every evening|with a soft cloth|by hand".split("|")
# fmt: on


def explanation(r: random.Random) -> str:
    if r.random() < 0.5:
        subject, (a, b, c) = r.choice(list(CAUSES.items()))
        return r.choice(EXPLANATIONS).format(s=subject, S=capital(subject), a=a, b=b, c=c)
    slots = {"o": OBJECTS, "v": VERBS, "c": GOOD, "d": GOOD, "w": BAD, "t": TIMES}
    return " ".join(
        r.choice(ADVICE).format(**{k: r.choice(words) for k, words in slots.items()})
        for _ in range(r.randint(1, 3))
    )


def prose(r: random.Random) -> str:
    title = r.choice(
        [
            "Notes",
            "About the weather",
            "In the workshop",
            "How things work",
            "Good habits",
            "A short guide",
        ]
    )
    return (
        f"{BOS}# {title}\n\n"
        + "\n\n".join(explanation(r) for _ in range(r.randint(2, 4)))
        + f"\n{EOS}"
    )


def arithmetic(r: random.Random) -> str:
    name, things = (
        r.choice(FIRST_NAMES),
        r.choice(["apples", "bolts", "stamps", "books", "coins", "cables", "eggs", "tickets"]),
    )
    a, b = r.randint(2, 60), r.randint(2, 30)
    question, answer = r.choice(
        [
            (
                f"{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
                a + b,
            ),
            (f"{name} has {a + b} {things} and gives away {b}. How many {things} are left?", a),
            (
                f"{name} packs {b} boxes with {a % 10 + 2} {things} each. How many {things} is that?",
                b * (a % 10 + 2),
            ),
            (
                f"{name} shares {b * (a % 8 + 2)} {things} equally among {a % 8 + 2} friends. How many does each friend get?",
                b,
            ),
            (f"What is {a} plus {b}?", a + b),
            (f"What is {a + b} minus {b}?", a),
        ]
    )
    return chat(question, str(answer))


PYTHON = '''```python
def {f}({p}):
    """{Doc}"""
    {v} = {n}
    for {i} in {p}:
        if {i} > {m}:
            {v} += {i}
    return {v}
```'''
SHELL = """```bash
$ {tool} install {pkg}
$ {tool} run --name {f} --count {n} --out ./{v}.json
$ cat {v}.json | grep "{p}"
```"""
YAML = """```yaml
{f}:
  image: {pkg}:{m}.{n}
  ports: ["{n}80:80"]
  env:
    {V}: "{p}"
  retries: {m}
```"""
JSON = """```json
{{"{f}": {{"{p}": {n}, "{v}": "{pkg}", "enabled": true, "items": [{m}, {n}]}}}}
```"""
STEPS = (
    "Install the `{pkg}` package.|Open the file `{f}.py` in your editor.|Set `{V}` to `{n}`.|Run the command again and check the output."
    "|Restart the service; it listens on port {n}80.|Copy the result to the `{v}/` folder.|Log in with your user name and password.|Wait {m} seconds."
    '|If you see an error, read the last line first.|Commit your changes with `git commit -m "{p}"`.'
).split("|")
CODE_WORDS = "data value item total count path name config user file rows cache log model token batch server client query result".split()


def how_to(r: random.Random) -> str:
    w = r.sample(CODE_WORDS, 6)
    slots: dict[str, Any] = dict(
        f=f"{r.choice(['load', 'read', 'sum', 'make', 'check', 'send'])}_{w[0]}", p=w[1], v=w[2], i=w[3], V=f"{w[4]}_{w[5]}".upper(), pkg=r.choice(CODE_WORDS) + r.choice(["", "-tools", "lib", "-cli"]),
        n=r.randint(0, 99), m=r.randint(1, 20), tool=r.choice(["pip", "npm", "apt", "docker", "cargo"]), Doc=f"Return the {w[2]} of all {w[1]}.",
    )  # fmt: skip
    steps = "\n".join(
        f"{i}. {s.format(**slots)}" for i, s in enumerate(r.sample(STEPS, r.randint(2, 4)), 1)
    )
    snippet = r.choice([PYTHON, SHELL, YAML, JSON]).format(**slots)
    table = (
        f"\n\n| {w[0]} | {w[1]} |\n|---|---|\n| {w[2]} | {slots['n']} |\n| {w[3]} | {slots['m']} |"
        if r.random() < 0.3
        else ""
    )
    return f"{BOS}# How to {slots['f'].replace('_', ' the ')}\n\n{steps}\n\n{snippet}{table}\n{EOS}"


MIXTURE = [
    (questions, 50),
    (question_in_context, 18),
    (handbook, 12),
    (prose, 6),
    (arithmetic, 8),
    (how_to, 6),
]


def documents(seed: int) -> Iterator[str]:
    """Endless text, one document at a time; bos and eos are spelled out inside it."""
    r = random.Random(seed)
    makers, weights = zip(*MIXTURE, strict=True)
    while True:
        yield r.choices(makers, weights)[0](r)


# --- tokenizer -------------------------------------------------------------------------------


def train_tokenizer(texts: list[str]) -> Any:
    """Byte-level BPE, so no text is unknown; single digits, so that numbers are spelled rather than guessed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((t.replace(BOS, "").replace(EOS, "") for t in texts), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=1024,
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
    )  # fmt: skip


# --- training --------------------------------------------------------------------------------


def blocks(tokenizer: Any, seed: int, count: int) -> Any:
    """`count` blocks of packed documents as one tensor [count, BLOCK_TOKENS], int64."""
    import torch

    stream: list[int] = []
    source, wanted = documents(seed), count * BLOCK_TOKENS
    while len(stream) < wanted:
        texts = [next(source) for _ in range(1000)]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            stream.extend(ids)
    return torch.tensor(stream[:wanted]).view(count, BLOCK_TOKENS)


def new_model(tokenizer: Any, layers: int, hidden: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers,
        intermediate_size=-(-hidden * 8 // 3 // 64) * 64,  # a multiple of 64: NF4 works in blocks of 64
        num_attention_heads=hidden // 32, num_key_value_heads=hidden // 32, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def train(model: Any, blocks_NT: Any, batch: int, peak_rate: float) -> None:
    """One pass: every block is seen once, so there is nothing to overfit."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    steps, warmup, begin, running = len(blocks_NT) // batch, 100, time.time(), 0.0

    def rate(step: int) -> float:
        return min(1, (step + 1) / warmup) * (
            0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step, batch_BT in enumerate(blocks_NT[: steps * batch].split(batch), 1):
        tokens_BT = batch_BT.to(model.device)
        # The weights stay fp32; computing in fp32 as well takes half as long again.
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(input_ids=tokens_BT, labels=tokens_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running += loss.item()
        if step % 50 == 0:
            print(
                f"step={step}/{steps} loss={running / 50:.3f} minutes={(time.time() - begin) / 60:.1f}",
                flush=True,
            )
            running = 0.0


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, and a container reads it as another user
    print(json.dumps({p.name: p.stat().st_size for p in sorted(folder.iterdir())}, indent=1))


def main() -> None:
    import torch

    home = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=home / "trainer" / "builtin" / "tiny")
    parser.add_argument("--steps", type=int, default=3300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    o = parser.parse_args()

    torch.manual_seed(o.seed)
    sample = documents(o.seed)
    tokenizer = train_tokenizer([next(sample) for _ in range(20_000)])
    model = new_model(tokenizer, o.layers, o.hidden).to(o.device)
    print(
        f"parameters={model.num_parameters():,} tokens={o.steps * o.batch * BLOCK_TOKENS:,}",
        flush=True,
    )
    train(model, blocks(tokenizer, o.seed + 1, o.steps * o.batch), o.batch, o.rate)
    save(model, tokenizer, o.out)


if __name__ == "__main__":
    main()
