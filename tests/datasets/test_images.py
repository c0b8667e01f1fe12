"""How images are opened: every mode of Pillow by pixel values, orientation, one function for all of the project."""

import ast

import dassl.utils
import numpy as np
import pytest
from dassl.data.datasets import Datum
from PIL import Image

from dspt_atlas.datasets.images import MODES, open_image, read_image
from dspt_atlas.datasets.readable import Examined, examine_images
from dspt_atlas.errors import UserError
from dspt_atlas.run.model import load
from dspt_atlas.run.train import run_arguments
from support.paths import OWN_FOLDER, ROOT
from support.runs import result_of


def image_items(paths):
    return [Datum(impath=str(path), label=0) for path in paths]


RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.full_like(GREY, 255)
TURNS = {  # EXIF orientation: how to turn the pixels as stored
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def pixels(path):
    return np.asarray(read_image(path)).tolist()


def greys(path):
    """The values of a grey image."""
    values = np.asarray(read_image(path))
    assert (values == values[..., :1]).all()
    return values[..., 0].ravel().tolist()


def saved(path, array, mode=None, **options):
    image = Image.fromarray(np.asarray(array))
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


# Modes


def test_every_mode_of_pillow_is_in_the_table():
    assert set(Image.MODES) <= set(MODES)


@pytest.mark.parametrize("mode, array, suffix, expected", [
    ("RGB", RGB, "png", RGB),
    ("RGBA", np.dstack([RGB, ALPHA]), "png", RGB),
    ("L", GREY, "png", np.dstack([GREY] * 3)),
    ("LA", np.dstack([GREY, ALPHA]), "png", np.dstack([GREY] * 3)),
    ("1", GREY > 127, "png", np.dstack([(GREY > 127) * 255] * 3)),
    ("CMYK", np.dstack([255 - RGB, 0 * GREY]), "tif", RGB),
])  # fmt: skip
def test_values_of_eight_bits_stay_what_they_are(mode, array, suffix, expected, tmp_path):
    options = {"mode": mode} if mode == "CMYK" else {}
    Image.fromarray(array, **options).save(tmp_path / f"a.{suffix}")
    assert open_image(tmp_path / f"a.{suffix}").mode == mode
    assert pixels(tmp_path / f"a.{suffix}") == expected.tolist()


@pytest.mark.parametrize("mode, suffix", [
    ("P", "png"), ("P", "gif"), ("YCbCr", "jpg"), ("LAB", "tif"), ("RGB", "jpg"), ("L", "jpg"), ("RGB", "webp"),
    ("RGB", "bmp"), ("L", "pgm"), ("RGBX", "tif"), ("RGBA", "webp"), ("CMYK", "jpg"), ("L", "tif"),
])  # fmt: skip
def test_plain_files_of_eight_bits_are_what_pillow_makes_of_them(mode, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(RGB)
    image = Image.merge("LAB", image.split()) if mode == "LAB" else image.convert(mode)
    image.save(path)
    with Image.open(path) as image:
        assert pixels(path) == np.asarray(image.convert("RGB")).tolist()


@pytest.mark.parametrize("mode", sorted(mode for mode in Image.MODES if mode[:1] not in ("I", "F")))
def test_colours_survive_each_mode_of_eight_bits(mode):
    """White is white and black is black, whatever the mode."""
    for value in (0, 255):
        image = Image.new("RGB", (2, 2), (value,) * 3)
        if mode in ("RGBa", "La", "PA"):
            image = image.convert({"RGBa": "RGBA", "La": "LA", "PA": "P"}[mode])
        if mode == "LAB":
            image = Image.new("LAB", (2, 2), (value, 128, 128))
        found = np.asarray(MODES[mode](image if mode == "LAB" else image.convert(mode)))
        assert np.abs(found.astype(int) - value).max() <= 1


@pytest.mark.parametrize("suffix, dtype", [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("pgm", ">u2")])
def test_greys_of_sixteen_bits_keep_their_range(suffix, dtype, tmp_path):
    values = np.array([[0, 128, 129, 2000, 25700, 48000, 65535]], dtype)
    if suffix == "pgm":
        (tmp_path / "a.pgm").write_bytes(b"P5 7 1 65535\n" + values.tobytes())
    else:
        saved(tmp_path / f"a.{suffix}", values)
    assert open_image(tmp_path / f"a.{suffix}").mode in ("I;16", "I;16B", "I")  # by the version of Pillow
    assert greys(tmp_path / f"a.{suffix}") == [0, 0, 1, 8, 100, 187, 255]


def test_tiffs_of_twelve_bits_are_scaled_by_twelve_bits(tmp_path):
    """Two values in three bytes: 4095, 0, 2048, 1024."""
    path = saved(tmp_path / "a.tif", np.zeros((1, 4), np.uint16))
    write_tiff(path, bytes([0xFF, 0xF0, 0x00, 0x80, 0x04, 0x00]), bits=12, size=(4, 1))
    assert greys(path) == [255, 0, 128, 64]


@pytest.mark.parametrize("bits, sample, data, expected", [
    (16, 1, np.array([0, 65535, 2000, 25700], "<u2"), [255, 0, 247, 155]),
    (32, 3, np.array([0, 1, 0.2, 0.6], "<f4"), [255, 0, 204, 102]),
])  # fmt: skip
def test_tiffs_whose_white_is_zero_are_not_read_as_negatives(bits, sample, data, expected, tmp_path):
    write_tiff(tmp_path / "a.tif", data.tobytes(), bits=bits, sample=sample, white_is_zero=True, size=(4, 1))
    assert greys(tmp_path / "a.tif") == expected


def write_tiff(path, data, bits, size, sample=1, white_is_zero=False):
    """Write a grey TIFF of one strip, tag by tag; `sample`: 1 unsigned, 2 signed, 3 float."""
    tags = [(256, size[0]), (257, size[1]), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 0),
            (277, 1), (278, size[1]), (279, len(data)), (339, sample)]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + (start if tag == 273 else value).to_bytes(4, "little")
        for tag, value in tags
    )
    path.write_bytes(b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4) + data)


def test_floats_from_0_to_1_are_scaled(tmp_path):
    path = saved(tmp_path / "a.tif", np.array([[0, 0.1, 0.5, 1]], np.float32))
    assert (open_image(path).mode, greys(path)) == ("F", [0, 26, 128, 255])


@pytest.mark.parametrize("array, mode", [
    (np.array([[0, 255]], np.float32), "F"),
    (np.array([[-0.5, 1]], np.float32), "F"),
    (np.array([[np.nan, 1]], np.float32), "F"),
    (np.array([[0, np.inf]], np.float32), "F"),
    (np.array([[0, 255]], np.int32), "I"),
    (np.array([[0, 2**20]], np.int32), "I"),
    (np.array([[0, 255]], np.int16), "I"),
])  # fmt: skip
def test_values_of_an_unknown_range_are_refused(array, mode, tmp_path):
    path = tmp_path / "a.tif"
    if array.dtype == np.int16:
        write_tiff(path, array.tobytes(), bits=16, sample=2, size=(2, 1))
    else:
        saved(path, array)
    with pytest.raises(UserError) as error:
        read_image(path)
    assert all(word in str(error.value) for word in (str(path), "TIFF", f"mode {mode}"))
    assert "\n" not in str(error.value)


# Orientation


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_orientation_is_turned_upright_once(suffix, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", RGB, exif=exif, **options)
    assert pixels(path) == TURNS[orientation](RGB).tolist()
    assert open_image(path).is_turned == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_means_nothing_turns_nothing(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels(saved(tmp_path / "a.png", RGB, exif=exif)) == RGB.tolist()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [
    b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\5\0\x12\1\3\0",
    b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0abcd\0\0\0\0",
])  # fmt: skip
def test_damaged_metadata_do_not_make_an_image_unreadable(exif, tmp_path):
    assert read_image(saved(tmp_path / "a.jpg", RGB, exif=exif)).size == (7, 5)


# One function for all


def test_our_engine_opens_images_as_we_do_or_refuses_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [saved(tmp_path / f"{mode}.png", RGB, mode, exif=exif) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")]
    for path in paths:
        assert np.asarray(dassl.utils.read_image(str(path))).tolist() == pixels(path)
    for number, dtype in enumerate((np.uint16, np.float32, np.int32)):
        with pytest.raises(OSError, match="8 bits"):
            dassl.utils.read_image(str(saved(tmp_path / f"{number}.tif", np.ones((2, 2), dtype))))


def test_nothing_else_opens_image_files():
    """Besides: the engine, a distribution of its own, drawings of the embedded data, which are bytes, and stamps.

    Those have a transparent ground, which becomes white.
    """
    product = [path for folder in ("dspt_atlas", "trainers", "datasets", "scripts", "benchmarks", "engine/dassl")
               for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    opening = {
        path.relative_to(ROOT).as_posix()
        for path in product
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")
    }
    scripts = {f"scripts/embedded/{name}.py" for name in ("drawings", "photo_things")}
    assert opening == {"datasets/images.py", "engine/dassl/utils/tools.py", *scripts}


@pytest.fixture
def turned(tiny_dataset, tmp_path):
    """Return a function that writes an image to be turned, one of 16 bits, and their upright copies."""
    with Image.open(tiny_dataset / "test" / "blue" / "0.png") as image:
        upright = np.asarray(image)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = upright[..., 0]
    return {
        saved(tmp_path / "turned.png", np.rot90(upright), exif=exif): saved(tmp_path / "upright.png", upright),
        saved(tmp_path / "wide.png", grey.astype(np.uint16) * 257): saved(tmp_path / "grey.png", grey),
    }


@pytest.mark.parametrize("cache", ["none", "features"])
def test_training_test_and_prediction_see_the_same_upright_image(cache, turned, tiny_run, tiny_clip_path, tmp_path):
    transforms = ["INPUT.TRANSFORMS", ("center_crop", "normalize"), "INPUT.VIEWS", 1, "INPUT.CACHE", cache]
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path / "run", *transforms)
    for odd, plain in turned.items():
        for loader in (trainer.train_loader_x, trainer.val_loader, trainer.test_loader):
            dataset = loader.dataset
            dataset.data_source = image_items([odd, plain])
            assert dataset[0]["img"].equal(dataset[1]["img"])
        (batch,) = trainer.items_loader(image_items([odd, plain]))
        assert batch["img"][0].equal(batch["img"][1])


def test_prediction_is_the_same_for_an_image_that_must_be_turned(turned, tiny_noisy_run):
    model = load(tiny_noisy_run)
    for odd, plain in turned.items():
        first, second = model.probabilities([odd, plain])
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_run_on_images_that_must_be_turned_or_scaled_is_the_run_on_plain_ones(tiny_dataset, tiny_clip_path, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in tiny_dataset.rglob("*.png"):
        with Image.open(path) as image:
            colour, grey = np.asarray(image), np.asarray(image.convert("L"))
        is_wide = path.stem in ("1", "3")
        for data in ("plain", "odd"):
            target = tmp_path / data / path.relative_to(tiny_dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            if data == "plain":
                saved(target, grey if is_wide else colour)
            elif is_wide:
                saved(target, grey.astype(np.uint16) * 257)
            else:
                saved(target, np.rot90(colour), exif=exif)
    found = []
    for data in ("plain", "odd"):
        options = ["--root", tmp_path / data, "--trainer", "CoOp", "--backbone", tiny_clip_path, "--seed", 1]
        options += ["--dataset-config-file", OWN_FOLDER]
        options += ["--output-dir", tmp_path / "runs" / data, "DATALOADER.NUM_WORKERS", 0, "OPTIM.MAX_EPOCH", 1]
        run_arguments(list(map(str, [*options, "TRAINER.COOP.N_CTX", 2, "VERBOSE", False])))
        result = result_of(tmp_path / "runs" / data)
        result["history"][0].pop("seconds")
        found.append([result["accuracy"], result["macro_f1"], result["history"]])
    assert found[0] == found[1]


def test_images_that_are_turned_or_scaled_are_told(turned):
    (turned_path, _), (wide, grey) = turned.items()
    found = examine_images(image_items([turned_path, wide, grey]))
    assert found[::2] == [Examined(str(turned_path), "", "RGB", True), Examined(str(grey), "", "L", False)]
    assert (found[1].problem, found[1].mode[0], found[1].is_turned) == ("", "I", False)
