"""Images of a batch, which are not stacked: what a device or a memory changes, and how batches are joined."""

import torch

from dept_vl.data.collator import Example, by_rows, collate, join_batches
from dept_vl.data.image_rows import ImageRows, ProcessedImage, Record
from dept_vl.data.visual import ProcessedImages
from tests.models.vision_language_folders import draw_image


def image(number, places=3):
    return ProcessedImage(torch.arange(places), {"pixel_values": torch.full((1, 2), float(number))})


def batch(images):
    examples = [Example(number, [1, 2], []) for number in range(2 if images is None else len(images))]
    return collate(examples, 0, images=images)


def test_an_image_that_two_rows_have_is_one_after_a_change_too():
    one, other = image(1), image(2, places=5)
    rows = ImageRows(((one,), (), (other, one))).map(lambda tensor: tensor + 1)
    assert [len(row) for row in rows.rows] == [1, 0, 2]
    assert rows.rows[0][0] is rows.rows[2][1]
    assert rows.rows[0][0].tensors["pixel_values"].tolist() == [[2.0, 2.0]]
    assert batch(rows).to("cpu").images.rows[2][0].ids.tolist() == [1, 2, 3, 4, 5]


def test_rows_of_several_images_follow_one_another():
    images = [image(number) for number in range(6)]
    grouped = by_rows({"images": ImageRows.one_each(images)}, 3)["images"]
    assert grouped.rows == ((images[0], images[1]), (images[2], images[3]), (images[4], images[5]))
    assert grouped[1:].rows == grouped.rows[1:]


def test_batches_of_one_and_of_two_images_a_row_are_joined():
    first, second = ImageRows.one_each([image(1)]), ImageRows(((image(2), image(3)),))
    joined = join_batches([batch(first), batch(second)], 0)
    assert joined.images.rows == first.rows + second.rows


def test_nothing_is_seen_in_records_of_zeros():
    record = Record(torch.arange(3), torch.ones(2, 4), torch.ones(1, 2, 4), torch.tensor([1, 2, 2]))
    rows = ImageRows(((record, image(1)),)).unseen()
    unseen, processed = rows.rows[0]
    assert unseen.tokens.abs().sum() == unseen.deepstack.abs().sum() == 0
    assert unseen.grid.tolist() == [1, 2, 2]
    assert processed.is_unseen


def test_an_image_that_is_named_twice_is_processed_once(tmp_path):
    draw_image(8, 8).save(tmp_path / "a.png")
    seen = []

    def process(opened):
        seen.append(opened.size)
        return image(1)

    source = ProcessedImages(tmp_path, process)
    rows = source.read([1, 1], ["a.png", "a.png"])["images"]
    assert seen == [(8, 8)]
    assert rows.rows[0][0] is rows.rows[1][0]


def test_rows_without_an_image_stand_beside_others_in_a_joined_batch():
    """Tasks of one run, some of whose rows have images."""
    text, seen = batch(None), batch(ImageRows.one_each([image(1)]))
    (row,) = seen.images.rows
    for parts, expected in (((text, seen), ((), (), row)), ((seen, text), (row, (), ()))):
        assert join_batches(parts, 0).images.rows == expected
    assert join_batches((text, text), 0).images is None
