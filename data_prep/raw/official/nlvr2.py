"""NLVR2's form: an object a line, a sentence about a pair of images that is true of it or not.

What belongs together is in the identifier, ``split-set-pair-sentence`` (``nlvr2/README.md`` of lil-lab/nlvr): the
images are called ``split-set-pair-img0.png`` and ``-img1.png``, whatever kind of file they are, and a sentence is asked
about up to four pairs of its set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, records, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed


def _read(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    (file,) = files
    for number, record in enumerate(records(file, "")):
        place = Place(file.path, "", number)
        identifier = take(record, "identifier", str, place)
        parts = identifier.split("-")
        if len(parts) != 4 or not all(parts):
            raise place.error(
                f'"identifier" should be split-set-pair-sentence, such as dev-850-0-0, found {identifier!r}'
            )
        name, of_set, pair, sentence = parts
        yield (
            str(place),
            {
                "id": identifier,
                "left": f"{name}-{of_set}-{pair}-img0.png",
                "right": f"{name}-{of_set}-{pair}-img1.png",
                "sentence": take(record, "sentence", str, place),
                "label": optional_text(record, "label", place),
                "pairs": f"{name}-{of_set}--{sentence}",  # as metrics.py names all pairs of a sentence
            },
        )


FORMAT = OfficialFormat(
    _read,
    ("id", "left", "right", "sentence", "label", "pairs"),
    "one file of an example a line, such as dev.json",
    is_lines=True,
)
