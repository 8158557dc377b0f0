"""Make questions about pictures from their captions, and measure the answers of a model.

python bench/questions.py captions.txt vectors.npy --lr 0.001: line i of the captions is about row i
of the vectors; the options that follow are those of charrnn train. A caption such as "woman running
dark skin tone" or "japan" has the answers. Of the pictures without a tone, an animal or a flag, as
many are asked about as have the most common answer.

The pictures are cut into parts, and each part is tested with a model that has learned from the
others. The table compares its answers with the most common answer to each question in training.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
from quality import charrnn

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
PEOPLE = ("man", "woman", "person")
MIN_PICTURES = 3  # of an answer: one that is hardly ever seen cannot be learned
ABSENT = ("none", "no")

ANIMAL_NAMES = """
alligator ant badger bear beaver bee beetle bird bison boar buffalo bug butterfly camel cat chick
chicken chipmunk cow crab crocodile deer dinosaur dodo dog dolphin donkey dove dragon duck eagle
elephant ewe fish flamingo fox frog giraffe goat goose gorilla hamster hedgehog hippopotamus
honeybee horse jellyfish kangaroo koala leopard lion lizard llama lobster mammoth monkey moose
mosquito mouse octopus orangutan otter owl ox panda parrot peacock penguin phoenix pig rabbit
raccoon ram rat rhinoceros rooster scorpion seal shark sheep shrimp skunk sloth snail snake spider
squid squirrel swan tiger turkey turtle unicorn whale wolf worm zebra
"""
ANIMALS = {*ANIMAL_NAMES.split()}
NO_ANIMALS = {"button", "cake", "computer", "game", "hot", "teddy", "trap", "web"}  # "hot dog"

FLAG_NAMES = """
afghanistan, albania, algeria, american samoa, andorra, angola, anguilla, antarctica, antigua &
barbuda, argentina, armenia, aruba, ascension island, australia, austria, azerbaijan, bahamas,
bahrain, bangladesh, barbados, belarus, belgium, belize, benin, bermuda, bhutan, black flag,
bolivia, bosnia & herzegovina, botswana, bouvet island, brazil, british indian ocean territory,
british virgin islands, brunei, bulgaria, burkina faso, burundi, cambodia, cameroon, canada,
canary islands, cape verde, caribbean netherlands, cayman islands, central african republic, ceuta
& melilla, chad, chequered flag, chile, china, christmas island, clipperton island, cocos
(keeling) islands, colombia, comoros, congo-brazzaville, congo-kinshasa, cook islands, costa rica,
croatia, crossed flags, cuba, curaçao, cyprus, czechia, côte d'ivoire, denmark, diego garcia,
djibouti, dominica, dominican republic, ecuador, egypt, el salvador, england, equatorial guinea,
eritrea, estonia, eswatini, ethiopia, european union, falkland islands, faroe islands, fiji,
finland, france, french guiana, french polynesia, french southern and antarctic lands, gabon,
gambia, georgia, germany, ghana, gibraltar, greece, greenland, grenada, guadeloupe, guam,
guatemala, guernsey, guinea, guinea-bissau, guyana, haiti, heard & mcdonald islands, honduras,
hong kong sar china, hungary, iceland, india, indonesia, iran, iraq, ireland, isle of man, israel,
italy, jamaica, japan, jersey, jordan, kazakhstan, kenya, kiribati, kosovo, kuwait, kyrgyzstan,
laos, latvia, lebanon, lesotho, liberia, libya, liechtenstein, lithuania, luxembourg, macao sar
china, madagascar, malawi, malaysia, maldives, mali, malta, marshall islands, martinique,
mauritania, mauritius, mayotte, mexico, micronesia, moldova, monaco, mongolia, montenegro,
montserrat, morocco, mozambique, myanmar (burma), namibia, nauru, nepal, netherlands, new
caledonia, new zealand, nicaragua, niger, nigeria, niue, norfolk island, north korea, north
macedonia, northern mariana islands, norway, oman, pakistan, palau, palestinian territories,
panama, papua new guinea, paraguay, peru, philippines, pirate flag, pitcairn islands, poland,
portugal, puerto rico, qatar, rainbow flag, romania, russia, rwanda, réunion, samoa, san marino,
sark, saudi arabia, scotland, senegal, serbia, seychelles, sierra leone, singapore, sint maarten,
slovakia, slovenia, solomon islands, somalia, south africa, south georgia & south sandwich
islands, south korea, south sudan, spain, sri lanka, st. barthélemy, st. helena ascension &
tristan da cunha, st. kitts & nevis, st. lucia, st. martin, st. pierre & miquelon, st. vincent &
grenadines, sudan, suriname, svalbard & jan mayen, sweden, switzerland, syria, são tomé &
príncipe, taiwan, tajikistan, tanzania, thailand, timor-leste, togo, tokelau, tonga, transgender
flag, triangular flag, trinidad & tobago, tunisia, turkmenistan, turks & caicos islands, tuvalu,
türkiye, u.s. outlying islands, u.s. virgin islands, uganda, ukraine, united arab emirates, united
kingdom, united nations, united states, uruguay, uzbekistan, vanuatu, vatican city, venezuela,
vietnam, wales, wallis & futuna, western sahara, white flag, yemen, zambia, zimbabwe, åland
islands
"""
FLAGS = {*FLAG_NAMES.strip().replace("\n", " ").split(", ")}


class Question(NamedTuple):
    """What is asked about a row of the vectors, and the answer."""

    row: int
    text: str
    answer: str


def find_tone(caption: str) -> str | None:
    """Return the skin tone of a caption, "none", or None if there are several."""
    tones = re.findall(r"(\S+) skin tone", caption)
    known = len(tones) == 1 and tones[0] in TONES
    return tones[0] if known else None if tones else "none"


def find_person(caption: str) -> str | None:
    """Return whether a caption is about a man, a woman or a person, or None."""
    people = [word for word in caption.split() if word in PEOPLE]
    return people[0] if len(people) == 1 else None


def find_animal(caption: str) -> str:
    """Return the first animal of a caption, or "none"."""
    words = caption.split()
    found = [word for word in words if word in ANIMALS]
    return found[0] if found and not {*words} & NO_ANIMALS else "none"


def find_flag(caption: str) -> str | None:
    """Return whether a caption is that of a flag, or None if a flag is a part of the picture."""
    if caption in FLAGS:
        return "yes"
    return None if "flag" in caption.split() else "no"


KINDS: dict[str, Callable[[str], str | None]] = {
    "what skin tone?": find_tone,
    "man, woman or person?": find_person,
    "which animal?": find_animal,
    "is it a flag?": find_flag,
}


def make_questions(captions: list[str], rng: random.Random, min_pictures: int) -> list[Question]:
    """Return the questions about captions, in a random order.

    An answer of fewer than ``min_pictures`` is left out.
    """
    questions = []
    for text, find in KINDS.items():
        rows = rng.sample(range(len(captions)), len(captions))
        asked = [Question(row, text, find(captions[row]) or "") for row in rows]
        counts = Counter(q.answer for q in asked)
        present = [n for answer, n in counts.items() if answer and answer not in ABSENT]
        left = {answer: n for answer, n in counts.items() if answer and n >= min_pictures}
        left |= {answer: min(counts[answer], max(present, default=0)) for answer in ABSENT}
        for question in asked:
            if left.get(question.answer, 0) > 0:
                questions.append(question)
                left[question.answer] -= question.answer in ABSENT
    rng.shuffle(questions)
    return questions


def cut(questions: list[Question], folds: int) -> Iterator[tuple[list[Question], list[Question]]]:
    """Yield the questions to learn from and those to test; a picture is only in one of them."""
    for fold in range(folds):
        train = [question for question in questions if question.row % folds != fold]
        yield train, [question for question in questions if question.row % folds == fold]


def write(questions: list[Question], path: Path) -> Path:
    path.write_text("".join("\t".join(map(str, q)) + "\n" for q in questions), encoding="utf-8")
    return path


def most_common(questions: list[Question]) -> dict[str, str]:
    """Return the most common answer to each question."""
    pairs = Counter((q.text, q.answer) for q in questions).most_common()
    return {text: answer for (text, answer), _ in reversed(pairs)}


@click.command(context_settings={"ignore_unknown_options": True}, help=__doc__)
@click.argument("captions", type=click.Path(path_type=Path))
@click.argument("vectors", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--test", nargs=2, type=click.Path(path_type=Path), help="Other captions, vectors.")
@click.option("--folds", default=5, help="Number of parts, each of which is tested once.")
@click.option("--folder", default=Path("checkpoints"), type=click.Path(path_type=Path))
@click.option("--seed", default=0)
def main(
    captions: Path,
    vectors: Path,
    options: tuple[str, ...],
    test: tuple[Path, Path] | None,
    folds: int,
    folder: Path,
    seed: int,
) -> None:
    folder.mkdir(exist_ok=True)
    rng, model = random.Random(seed), folder / "questions.npz"
    questions = make_questions(captions.read_text("utf-8").splitlines(), rng, MIN_PICTURES)
    pairs, about = cut(questions, folds), vectors
    if test:
        known = {question[1:] for question in questions}
        others, about = make_questions(test[0].read_text("utf-8").splitlines(), rng, 1), test[1]
        pairs = iter([(questions, [question for question in others if question[1:] in known])])

    asked, right, right_without = Counter[str](), Counter[str](), Counter[str]()
    for train, others in pairs:
        common = most_common(train)
        lines = write(train, folder / "questions.tsv"), write(others, folder / "test.tsv")
        how = ["--test-fraction", "0", "--seed", str(seed), "-o", model, "--force", "--quiet"]
        charrnn("train", lines[0], "--features", vectors, *how, *options)
        answers = charrnn("predict", model, "--features", about, lines[1]).splitlines()
        for question, answer in zip(others, answers, strict=True):
            asked[question.text] += 1
            right[question.text] += answer == question.answer
            right_without[question.text] += common.get(question.text) == question.answer

    click.echo("| question | asked | right without the picture | with it |\n|---|---:|---:|---:|")
    for text, n in asked.items():
        shares = right_without[text] / n, right[text] / n
        click.echo(f"| {text} | {n:,} | {shares[0]:.3f} | {shares[1]:.3f} |")


if __name__ == "__main__":
    main()
