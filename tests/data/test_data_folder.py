"""From a folder of images to Splits, and to predictions."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.config import Data, Split
from tuner.data import Splits, encoder_from_json, load, read_raw
from tuner.data.image import ImageEncoder
from tuner.errors import DataError, UsageError

Load = Callable[..., Splits]
Make = Callable[..., Path]


def picture(seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    """An image of random pixels; `size` is (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(name="folder")
def give_folder(tmp_path: Path) -> Path:
    """The folder that sources are relative to."""
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Make:
    """Make a folder `d` of images in order: two classes of 10 images each, all 12 x 10 pixels."""

    def make_folder(
        names: tuple[str, ...] = ("cat", "dog"), each: int = 10, of: Callable[[int], Image.Image] = picture
    ) -> Path:
        for place, name in enumerate(names):
            (folder / "d" / name).mkdir(parents=True)
            for i in range(each):
                of(100 * place + i).save(folder / "d" / name / f"{i}.png")
        return folder / "d"

    return make_folder


@pytest.fixture(name="load")
def give_load(folder: Path) -> Load:
    """Load the folder `d`."""

    def load_folder(source: str = "d", **data: Any) -> Splits:
        data["split"] = Split(**data.get("split", {}))
        return load(Data(source=source, **data), folder)

    return load_folder


def said(load: Load, **data: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(**data)
    return str(caught.value).split("\n")


def encoded(splits: Splits) -> np.ndarray:
    """All rows of the source in order."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part]
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    return np.concatenate([part.x for part in parts])[order]


def labels(splits: Splits) -> np.ndarray:
    parts = [part for part in (splits.train, splits.val, splits.test) if part]
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    return np.concatenate([part.y for part in parts])[order]


def test_a_folder_is_read_in_the_order_of_its_paths_with_a_class_a_folder(make: Make, load: Load) -> None:
    root = make(("dog", "cat"))
    splits = load()
    assert (splits.shape.kind, splits.shape.task, splits.shape.input) == ("image", "classification", (3, 10, 12))
    assert splits.shape.classes == ("cat", "dog")
    paths = sorted(root.rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert np.array_equal(encoded(splits), expected.transpose(0, 3, 1, 2))
    assert [splits.shape.classes[y] for y in labels(splits)] == [path.parent.name for path in paths]
    assert splits.notes == ()


def test_a_folder_gives_the_same_splits_each_time(make: Make, load: Load, folder: Path) -> None:
    root = make(of=lambda i: picture(i, (20 + i % 7, 18)))
    one = load()
    root.rename(folder / "moved")
    two = load("moved")
    assert (one.fingerprint, one.test_hash) == (two.fingerprint, two.test_hash)
    assert one.train.x.tobytes() == two.train.x.tobytes()
    assert encoder_from_json(one.encoder.to_json()) == one.encoder


def test_a_folder_may_bring_its_split(folder: Path, load: Load) -> None:
    for part, count in (("train", 8), ("valid", 3), ("test", 2)):
        for place, name in enumerate(("a", "b")):
            (folder / "d" / part / name).mkdir(parents=True)
            for i in range(count):
                picture(100 * place + 10 * count + i).save(folder / "d" / part / name / f"{i}.png")
    splits = load()
    assert splits.test is not None
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [16, 6, 4]
    assert splits.shape.classes == ("a", "b")
    assert splits.notes == ("kept the split that the data name",)


def test_test_images_have_no_say_in_the_size_and_the_color(folder: Path, load: Load) -> None:
    for part, size, mode in (("train", (20, 24), "L"), ("test", (40, 48), "RGB")):
        for name in ("a", "b"):
            (folder / "d" / part / name).mkdir(parents=True)
            for i in range(10):
                picture(i, size, mode).save(folder / "d" / part / name / f"{i}.png")
    splits = load()
    assert splits.shape.input == (1, 24, 20)
    assert "20 of 40 images are RGB and read as gray, as those for training are" in splits.notes


@pytest.mark.parametrize(
    ("sizes", "side", "expected"),
    [
        ([(12, 10)], None, (10, 12)),
        ([(256, 40)], None, (40, 256)),
        ([(300, 40)], None, (40, 40)),
        ([(12, 10)], 8, (8, 8)),
        ([(30, 50), (40, 90), (20, 70)], None, (30, 30)),
        ([(30, 200), (150, 300), (160, 300)], None, (96, 96)),
        ([(4, 6), (5, 7)], None, (16, 16)),
    ],
)
def test_images_are_brought_to_one_size(
    make: Make, load: Load, sizes: list[tuple[int, int]], side: int | None, expected: tuple[int, int]
) -> None:
    make(each=6, of=lambda i: picture(i, sizes[i % 100 % len(sizes)]))
    splits = load(image_size=side)
    assert splits.shape.input[1:] == expected
    were = f"{len(sizes)} sizes" if len(sizes) > 1 else "one size"
    note = f"12 images of {were} resized to {expected[1]} x {expected[0]} pixels and cut to their middle"
    assert splits.notes == (() if [expected[::-1]] == sizes else (note,))


def test_the_middle_of_an_image_is_kept_and_its_shape(make: Make, load: Load) -> None:
    def wide(i: int) -> Image.Image:
        pixels = np.zeros((32, 96, 3), dtype=np.uint8)
        pixels[:, :32, 0] = pixels[:, 64:, 2] = 255
        pixels[:, 32:64, 1] = 250 + i % 5
        return Image.fromarray(pixels)

    make(of=wide)
    x = encoded(load(image_size=16))
    # the middle third alone, but for a blur at its edges
    assert x[:, 1].min() >= 200
    assert x[:, :, :, 3:-3].reshape(20, 3, -1)[:, 0].max() == 0


def noisy(image: Image.Image, i: int) -> Image.Image:
    """The image with one pixel in a corner that tells images apart."""
    image.putpixel((0, 0), i % 100)
    return image


def upright() -> np.ndarray:
    pixels = np.zeros((10, 14), dtype=np.uint8)
    pixels[:3, :5] = 255
    pixels[6:, 9:] = 120
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp"])
def test_images_are_turned_upright(folder: Path, load: Load, orientation: int, ending: str) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(upright())
    if orientation > 1:
        image = image.transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact: dict[str, Any] = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
        for i in range(10):
            image.save(folder / "d" / name / f"{i}.{ending}", exif=exif, **exact)
    splits = load()
    assert splits.shape.input[1:] == (10, 14)
    assert np.abs(encoded(splits)[:, 0].astype(int) - upright()).max() < (30 if ending == "jpg" else 1)
    assert ("20 images turned upright" in splits.notes) == (orientation > 1)


def one_mode(mode: str) -> Image.Image:
    """An image of 2 x 1 fields: the left one dark, the right one light."""
    dark, light = 51, 204
    field = np.full((8, 8), dark, dtype=np.uint8)
    field[:, 4:] = light
    gray = Image.fromarray(field)
    if mode == "1":
        return gray.point(lambda value: 255 * (value > 128)).convert("1")
    if mode == "I;16":
        return Image.fromarray(field.astype(np.uint16) * 257)
    if mode == "P":
        return gray.convert("RGB").quantize(4)
    if mode == "PA":
        image = gray.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((0, 0))
        return image
    if mode in ("LA", "RGBA"):
        image = gray.convert(mode)
        image.putalpha(Image.fromarray((field == light).astype(np.uint8) * 255))
        return image
    return gray.convert(mode)


@pytest.mark.parametrize(
    ("mode", "ending", "channels", "left", "right"),
    [
        ("1", "png", 1, 0, 255),
        ("L", "png", 1, 51, 204),
        ("L", "pgm", 1, 51, 204),
        ("I;16", "png", 1, 51, 204),
        ("I;16", "tiff", 1, 51, 204),
        ("I;16", "pgm", 1, 51, 204),
        ("LA", "png", 1, 255, 204),
        ("P", "png", 3, 51, 204),
        ("P", "gif", None, 51, 204),
        ("PA", "png", 3, 255, 204),
        ("PA", "gif", None, 255, 204),
        ("RGB", "bmp", 3, 51, 204),
        ("RGB", "ppm", 3, 51, 204),
        ("RGBA", "png", 3, 255, 204),
        ("RGBA", "webp", 3, 255, 204),
        ("CMYK", "jpg", 3, 51, 204),
        ("CMYK", "tiff", 3, 51, 204),
    ],
)
def test_every_kind_of_pixel_becomes_gray_or_rgb(
    folder: Path, load: Load, mode: str, ending: str, channels: int | None, left: int, right: int
) -> None:
    exact: dict[str, Any] = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
        for i in range(10):
            image = one_mode(mode)
            image = image.convert("I") if (mode, ending) == ("I;16", "pgm") else image
            image.save(folder / "d" / name / f"{i}.{ending}", **exact)
    splits = load()
    x = encoded(splits).astype(int)
    assert channels in (None, x.shape[1])
    assert np.abs(x[:, :, :, :4] - left).max() <= 3
    assert np.abs(x[:, :, :, 4:] - right).max() <= 3
    told = {
        "I;16": "20 images scaled from 16 bits", "CMYK": "20 images converted from CMYK",
        "PA": "20 images laid over white", "LA": "20 images laid over white", "RGBA": "20 images laid over white",
    }  # fmt: skip
    assert [note for note in splits.notes if "identical" not in note] == ([told[mode]] if mode in told else [])


def test_gray_images_among_others_are_read_as_rgb(make: Make, load: Load) -> None:
    make(of=lambda i: picture(i, mode="L" if i < 5 else "RGB"))
    splits = load()
    assert splits.shape.input == (3, 10, 12)
    assert splits.notes == ("5 of 20 images are gray and read as RGB, as the others are",)
    assert (encoded(splits)[:5, 0] == encoded(splits)[:5, 2]).all()


def test_of_an_animation_the_first_frame_is_read(folder: Path, load: Load) -> None:
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
        for i in range(10):
            frames = [Image.new("L", (9, 9), shade) for shade in (40, 220)]
            noisy(frames[0], i).save(folder / "d" / name / f"{i}.gif", save_all=True, append_images=frames[1:])
    splits = load()
    assert (encoded(splits)[:, :, 1:, 1:] == 40).all()
    assert "20 images read as their first frame" in splits.notes


def test_large_jpegs_are_scaled_as_if_they_were_read_whole(folder: Path, load: Load) -> None:
    x, y = np.meshgrid(np.arange(900), np.arange(700))
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
        for i in range(10):
            smooth = np.stack([x / 899 * 255, y / 699 * 255, np.full_like(x, 10 * i)], axis=2).astype(np.uint8)
            Image.fromarray(smooth).save(folder / "d" / name / f"{i}.jpg", quality=95)
    found = encoded(load(image_size=32))
    whole = Image.fromarray(smooth).resize((32, 32), Image.Resampling.BICUBIC, box=(100, 0, 800, 700))
    assert np.abs(found[-1].astype(int) - np.asarray(whole).transpose(2, 0, 1)).max() <= 4


def test_hidden_and_other_files_are_left_out_and_the_latter_told(make: Make, load: Load) -> None:
    root = make()
    plain = load()
    for name in (".hidden.png", ".DS_Store", "Thumbs.db", "read me.txt", "no_ending"):
        (root / "cat" / name).write_bytes(b"x")
    (root / ".cache").mkdir()
    picture().save(root / ".cache" / "a.png")
    (root / "list.txt").write_text("x")
    splits = load()
    assert splits.fingerprint == plain.fingerprint
    assert splits.notes == ("skipped 4 files of other kinds than images (.db, .txt, no ending)",)


def test_the_content_says_what_an_image_is_not_its_ending(make: Make, load: Load) -> None:
    root = make()
    plain = load()
    picture(0).save(root / "cat" / "0.jpg", "PNG")
    (root / "cat" / "0.png").unlink()
    assert load().fingerprint == plain.fingerprint


def test_links_that_lead_out_or_in_a_circle_are_not_followed(make: Make, load: Load, folder: Path) -> None:
    root = make()
    plain = load()
    (folder / "outside").mkdir()
    picture(7).save(folder / "outside" / "x.png")
    (root / "cat" / "out.png").symlink_to(folder / "outside" / "x.png")
    (root / "out").symlink_to(folder / "outside")
    (root / "cat" / "self").symlink_to("self")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "nowhere.png").symlink_to("nothing.png")
    splits = load()
    assert splits.fingerprint == plain.fingerprint
    assert splits.notes == (
        "skipped 5 symbolic links that lead out of the folder or in a circle "
        "(cat/nowhere.png, cat/out.png, cat/self, cat/up, out)",
    )
    (root / "cat" / "inside.png").symlink_to(root / "cat" / "0.png")
    assert len(encoded(load())) == 21


def damage(root: Path) -> list[str]:
    """Make a folder wrong in every way that one image can be; return what is to be said."""
    cat = root / "cat"
    (cat / "text.png").write_text("no image at all")
    (cat / "empty.png").write_bytes(b"")
    whole = (cat / "0.png").read_bytes()
    (cat / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((5, 5), dtype=np.float32)).save(cat / "float.tiff")
    (cat / "bomb.png").write_bytes(bomb(20_000, 6_000))
    (cat / "bigger.png").write_bytes(bomb(200_000, 200_000))
    (cat / "new\nline.png").write_text("x")
    return [
        "d: cat/bigger.png: has more pixels than the 100 million that are read",
        "d: cat/bomb.png: has 20000 x 6000 pixels; up to 100 million are read",
        "d: cat/cut.png: can't be read (",
        "d: cat/empty.png: is empty; PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM are read",
        "d: cat/float.tiff: holds floating point values; save it with 8 or 16 bits a pixel",
        "d: cat/text.png: is no image; PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM are read",
        "d: 'cat/new\\nline.png': is no image; PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM are read",
    ]


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def test_all_images_that_cannot_be_read_are_told_at_once_a_line_each(make: Make, load: Load) -> None:
    root = make()
    expected = damage(root)
    (root / "bird").mkdir()
    lines = said(load)
    assert lines[0] == "d: bird: holds no images; put some in or remove the folder"
    assert len(lines) == 1 + len(expected)
    for line, start in zip(sorted(lines[1:]), sorted(expected), strict=True):
        assert line.startswith(start)


def test_a_cut_image_is_told_where_all_else_is_in_order(make: Make, load: Load) -> None:
    root = make()
    whole = (root / "cat" / "3.png").read_bytes()
    (root / "cat" / "3.png").write_bytes(whole[:-60])
    (line,) = said(load)
    assert line.startswith("d: cat/3.png: can't be read (")


def test_of_many_images_that_cannot_be_read_the_first_are_told(make: Make, load: Load) -> None:
    root = make()
    for i in range(33):
        (root / "cat" / f"bad{i:02}.png").write_text("x")
    lines = said(load)
    assert len(lines) == 21
    assert lines[0].startswith("d: cat/bad00.png: is no image;")
    assert lines[-1] == "d: and 13 more problems like these"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_told(make: Make, load: Load) -> None:
    root = make(("cat", "dog", "owl"))
    (root / "cat" / "3.png").chmod(0)
    (root / "owl").chmod(0)
    lines = said(load)
    (root / "owl").chmod(0o700)
    assert lines == [
        "d: owl: can't be read (Permission denied)",
        "d: cat/3.png: can't be read (Permission denied)",
    ]


def test_a_folder_that_is_arranged_otherwise_is_told_how(folder: Path, load: Load) -> None:
    d = folder / "d"
    d.mkdir()
    (line,) = said(load)
    assert line.startswith("d: is a folder without images; name a file of data, or ")
    assert "a folder that holds a folder of images (.png, .jpg, .jpeg, " in line
    picture().save(d / "0.png")
    picture().save(d / "1.png")
    assert said(load) == [
        "d: 2 images lie in no class folder (0.png, 1.png); move each into the folder of its class, "
        "as in FOLDER/CLASS/IMAGE"
    ]
    (d / "cat").mkdir()
    (d / "1.png").rename(d / "cat" / "1.png")
    assert said(load) == [
        "d: 1 image lies in no class folder (0.png); move it into the folder of its class, as in FOLDER/CLASS/IMAGE"
    ]
    (d / "0.png").unlink()
    assert said(load) == ["d: there is one class folder only, 'cat'; at least two are needed"]
    (d / "dog" / "young").mkdir(parents=True)
    picture().save(d / "dog" / "young" / "0.png")
    assert said(load) == [
        "d: dog/young: is a folder within a class folder; FOLDER/CLASS/IMAGE and FOLDER/train/CLASS/IMAGE are read"
    ]


def test_a_folder_that_brings_its_split_must_be_complete(folder: Path, load: Load) -> None:
    for name in ("train/a", "train/b", "test/a", "masks/a", "val"):
        (folder / "d" / name).mkdir(parents=True)
    for i in range(10):
        picture(i).save(folder / "d" / "train" / "a" / f"{i}.png")
        picture(i).save(folder / "d" / "test" / f"{i}.png")
    assert said(load) == [
        "d: masks: lies beside train and is none of val, valid, validation and test; move it elsewhere",
        "d: 10 images lie in no class folder (test/0.png, test/1.png, test/2.png and 7 more); "
        "move each into the folder of its class, as in FOLDER/train/CLASS/IMAGE",
        "d: masks/a: holds no images; put some in or remove the folder",
        "d: test/a: holds no images; put some in or remove the folder",
        "d: train/b: holds no images; put some in or remove the folder",
        "d: val: holds no images; put some in or remove the folder",
    ]


def test_what_names_a_column_or_another_kind_is_refused_before_images_are_read(make: Make, load: Load) -> None:
    damage(make())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target": "label"}, "d: data.target 'label' names a column, but this source brings its own target; leave"),
        ({"drop": ("a",)}, "d: data.drop 'a' names a column, and images have none; leave it out"),
        ({"split": {"groups": "g"}}, "d: data.split.groups 'g' names a column, and images have none; leave it out"),
        ({"split": {"time": "t"}}, "d: data.split.time 't' names a column, and images have none; leave it out"),
        ({"kind": "table"}, "d: data.kind table can't be read from a folder, which holds images; name a file"),
    ]
    for data, start in cases:
        (line,) = said(load, **data)
        assert line.startswith(start)


def test_a_size_for_what_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^data.image_size: is for a folder of images, and data.source is none"):
        load(Data(source="sklearn:digits", image_size=8), folder)


def test_folders_named_by_numbers_are_classes_or_numbers_if_asked(make: Make, load: Load) -> None:
    make(("10", "9", "2.5"))
    splits = load()
    assert splits.shape.task == "classification"
    assert splits.shape.classes == ("2.5", "9", "10")
    splits = load(task="regression")
    assert splits.shape.outputs == 1
    assert sorted(set(splits.encoder.target.restore(labels(splits)).round(4))) == [2.5, 9, 10]


def test_a_regression_needs_folders_named_by_numbers(make: Make, load: Load) -> None:
    make(("1", "two", "inf"))
    assert said(load, task="regression") == [
        "d: data.task regression needs folders whose names are numbers, and these are none: inf, two"
    ]


def test_a_class_of_one_image_is_told_by_its_name(make: Make, load: Load) -> None:
    make(("1,5", "2,5"))
    picture().save(make(("3,5",), each=0) / "3,5" / "0.png")
    (line,) = said(load)
    assert line.startswith("d: target 'folder': class '3,5' has one row only")


def predicted(splits: Splits, source: Any) -> np.ndarray:
    examples, count = read_raw(source, encoder_from_json(splits.encoder.to_json()))
    x = encoder_from_json(splits.encoder.to_json()).encode(examples)
    assert len(x) == count
    return np.asarray(x)


@pytest.mark.parametrize("gray", [False, True])
def test_images_to_predict_are_what_they_were_in_training(make: Make, load: Load, folder: Path, gray: bool) -> None:
    root = make(of=lambda i: picture(i, (30 + i % 5, 40), "L" if gray else "RGB"))
    splits = load()
    x = encoded(splits)
    assert np.array_equal(predicted(splits, str(root)), x)
    assert np.array_equal(predicted(splits, root / "dog"), x[10:])
    assert np.array_equal(predicted(splits, root / "dog" / "4.png"), x[14:15])
    flat = folder / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(flat / f"{i:03}.png")
    assert np.array_equal(predicted(splits, flat), x)
    arrays = np.stack([np.asarray(Image.open(flat / f"{i:03}.png")) for i in (0, 5, 10)])
    assert np.array_equal(splits.encoder.encode(arrays), x[[0, 5, 10]])


def test_images_to_predict_may_have_another_size_and_color_than_those_of_training(make: Make, load: Load) -> None:
    root = make(of=lambda i: picture(i, (32, 32)))
    splits = load()
    for mode in ("L", "RGB", "RGBA"):
        picture(5, (50, 70), mode).save(root / "cat" / "0.png")
        pixels = np.asarray(picture(5, (50, 70), mode))
        x = predicted(splits, root / "cat" / "0.png")
        assert x.shape == (1, 3, 32, 32)
        assert np.array_equal(splits.encoder.encode(pixels[None]), x)


def test_an_array_of_one_image_alone_is_not_taken_for_many(make: Make, load: Load) -> None:
    make(of=lambda i: picture(i, (32, 32)))
    encoder = load().encoder
    with pytest.raises(DataError, match=r"shape \(70, 50, 3\); one image alone has shape \(1, 70, 50, 3\)$"):
        encoder.encode(np.asarray(picture(5, (50, 70))))
    with pytest.raises(DataError, match=r"^images have shape \(70, 50\); \(rows, height, width\), "):
        encoder.encode(np.asarray(picture(5, (50, 70), "L")))


def test_a_folder_to_predict_that_cannot_be_read_is_refused_in_words(make: Make, load: Load, folder: Path) -> None:
    root = make()
    splits = load()
    expected = damage(root)
    with pytest.raises(DataError) as caught:
        predicted(splits, root)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(expected)
    assert all(line.startswith(f"{root}: ") for line in lines)
    (folder / "none").mkdir()
    with pytest.raises(DataError, match=r"none: is a folder without images; files that end in \.png, "):
        predicted(splits, folder / "none")
    with pytest.raises(DataError, match=r"0\.png: no such file"):
        predicted(splits, folder / "none" / "0.png")


def test_links_in_a_circle_end_the_search_for_images_to_predict(make: Make, load: Load) -> None:
    root = make()
    splits = load()
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "dog" / "cats").symlink_to(root / "cat")
    assert len(predicted(splits, root)) == 40


def test_a_network_of_arrays_takes_image_files_of_the_very_size_it_learned(
    make: Make, folder: Path, load: Load
) -> None:
    root = make()
    x = np.stack([np.asarray(Image.open(path)) for path in sorted(root.rglob("*.png"))])
    np.savez(folder / "d.npz", X=x, y=np.arange(20) % 2)
    splits = load("d.npz")
    assert np.array_equal(predicted(splits, root), encoded(splits))
    picture(0, (13, 10)).save(root / "cat" / "0.png")
    with pytest.raises(DataError, match=r"cat/0\.png: has 13 x 10 pixels; 12 x 10 were learned \(width x height\)$"):
        predicted(splits, root)
    np.savez(folder / "d.npz", X=x / 255, y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"^3 channels of float32 values were learned, which image files don't hold"):
        predicted(load("d.npz"), root)


def test_an_encoder_written_before_images_were_fitted_is_read(make: Make, load: Load) -> None:
    make()
    document = load().encoder.to_json()
    assert document.pop("fitted") is True
    encoder = encoder_from_json(document)
    assert isinstance(encoder, ImageEncoder)
    assert not encoder.fitted


def test_color_images_of_an_archive_are_standardized_channel_by_channel(folder: Path, load: Load) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    x[..., 1] //= 2
    x[..., 2] = 9
    np.savez(folder / "d.npz", X=x, y=np.arange(40) % 2)
    splits = load("d.npz")
    stored = splits.train.x / 255
    assert splits.encoder.standard.center == pytest.approx(stored.mean(axis=(0, 2, 3)))
    assert splits.encoder.standard.scale == pytest.approx([*stored.std(axis=(0, 2, 3))[:2], 1])
