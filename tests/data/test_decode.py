"""An image as a person would see it, against values computed by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fedray.data.decode import opened


def png(width, depth, colour, row, hidden=b""):
    """A PNG of one row by its specification: bits a channel, colour type (0 grey, 2 RGB, 3 palette, 4 grey
    and alpha, 6 RGBA)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    transparency = chunk(b"tRNS", hidden) if hidden else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + transparency
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )


def tiff(array, bits=None, photometric=1, kind=1):
    """An uncompressed grey TIFF of one row: photometric 0 is white at zero, 1 black; kind 1 unsigned, 2
    signed, 3 float."""
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    bits = bits or array.dtype.itemsize * 8
    tags = [
        (256, array.size),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 122),
        (277, 1),
        (279, len(data)),
        (339, kind),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def seen(tmp_path, data, name="image.png"):
    """[width, 3] of a picture of one row."""
    file = tmp_path / name
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        data.save(file)
    image = opened(file)
    assert image.mode == "RGB"
    return np.asarray(image)[0].astype(int)


def over_white(colour, alpha):
    return np.round(np.asarray(colour) * alpha / 255 + 255 * (1 - alpha / 255))


RAMP = np.array([0, 1, 128, 129, 257, 1000, 257 * 100, 32768, 65535 - 257, 65535], np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, big end first", "PGM"])
def test_grey_of_16_bits_is_scaled_to_8(kind, tmp_path):
    big = RAMP.astype(">u2").tobytes()
    if kind == "PNG":
        found = seen(tmp_path, png(len(RAMP), 16, 0, big))
    elif kind == "PGM":
        found = seen(tmp_path, b"P5 10 1 65535\n" + big, "image.pgm")
    else:
        image = Image.frombytes("I;16B", (10, 1), big) if "big" in kind else tiff(RAMP)
        found = seen(tmp_path, image, "image.tif")
    expected = [0, 0, 0, 1, 1, 4, 100, 128, 254, 255]  # the nearest to value / 257 (PNG specification, 13.12)
    assert found.tolist() == [[v] * 3 for v in expected]


def test_every_256th_of_16_bits_is_a_level_of_its_own(tmp_path):
    found = seen(tmp_path, png(256, 16, 0, (np.arange(256) * 257).astype(">u2").tobytes()))
    assert found[:, 0].tolist() == list(range(256))


def test_colours_of_16_bits_are_within_a_level_of_their_scaled_value(tmp_path):
    values = np.linspace(0, 65535, 300).astype(np.uint16).reshape(100, 3)
    found = seen(tmp_path, png(100, 16, 2, values.astype(">u2").tobytes()))
    assert np.abs(found - values / 257).max() <= 1
    assert found[0].tolist() == [0, 0, 0] or found.min() == 0
    assert found.max() == 255


def test_12_bits_and_white_at_zero_are_read_by_their_tags(tmp_path):
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10])  # 0, 2048, 4095 and 16, 12 bits each
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (277, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    twelve = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed
    assert seen(tmp_path, twelve, "a.tif")[:, 0].tolist() == [0, 128, 255, 1]
    white_at_zero = seen(tmp_path, tiff(np.array([0, 257, 65535], np.uint16), photometric=0), "b.tif")
    assert white_at_zero[:, 0].tolist() == [255, 254, 0]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([0.0, 0.5, 1.0], np.float32), 3),
        (np.array([0, 9, 70000], np.uint32), 1),
        (np.array([-9, 0, 9], np.int16), 2),
    ],
)
def test_numbers_of_which_nothing_says_what_is_white_are_refused(array, kind, tmp_path):
    with pytest.raises(
        ValueError, match=r"image\.tif cannot be read as an image: .*nothing says which of them is white"
    ):
        seen(tmp_path, tiff(array, kind=kind), "image.tif")


COLOUR, ALPHAS = (200, 40, 0), [0, 1, 64, 127, 128, 200, 254, 255]


@pytest.mark.parametrize("name", ["image.png", "image.webp", "image.tif"])
def test_alpha_is_composed_on_white(name, tmp_path):
    image = Image.new("RGBA", (8, 1))
    image.putdata([(*COLOUR, alpha) for alpha in ALPHAS])
    if name == "image.webp":
        image.save(tmp_path / name, lossless=True, exact=True)
        image = (tmp_path / name).read_bytes()
    assert seen(tmp_path, image, name).tolist() == [over_white(COLOUR, a).tolist() for a in ALPHAS]


def test_grey_with_alpha_is_composed_on_white(tmp_path):
    image = Image.new("LA", (8, 1))
    image.putdata([(30, alpha) for alpha in ALPHAS])
    assert seen(tmp_path, image)[:, 0].tolist() == [over_white(30, a) for a in ALPHAS]
    wide = struct.pack(">6H", 257 * 30, 257 * 64, 0, 65535, 5, 0)  # 16 bits a channel
    assert seen(tmp_path, png(3, 16, 4, wide))[:, 0].tolist() == [over_white(30, 64), 0, 255]
    assert seen(tmp_path, png(1, 16, 6, struct.pack(">4H", 0, 65535, 0, 0))).tolist() == [[255] * 3]


@pytest.mark.parametrize("alphas", [bytes([0, 128, 255]), bytes([0])])
def test_a_palette_with_transparent_entries_is_composed_on_white(alphas, tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, *COLOUR, 0, 0, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "image.png", transparency=alphas)
    expected = [
        over_white(c, a).tolist()
        for c, a in zip([(10, 20, 30), COLOUR, (0, 0, 0)], [*alphas, 255, 255][:3], strict=True)
    ]
    assert seen(tmp_path, (tmp_path / "image.png").read_bytes()).tolist() == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(2, 8, 0, bytes([7, 8]), struct.pack(">H", 7)), [255, 8]),
        (png(4, 2, 0, bytes([0b00011011]), struct.pack(">H", 1)), [0, 255, 170, 255]),  # 85 is hidden
        (png(2, 4, 0, bytes([0x3F]), struct.pack(">H", 3)), [255, 255]),
        (png(2, 1, 0, bytes([0]), struct.pack(">H", 0)), [255, 255]),
        (png(3, 16, 0, struct.pack(">3H", 1000, 1001, 0), struct.pack(">H", 1000)), [255, 4, 0]),
        (png(2, 8, 2, bytes([9, 9, 9, 9, 9, 8]), struct.pack(">3H", 9, 9, 8)), [9, 255]),
        (
            png(
                2, 16, 2, struct.pack(">6H", 1000, 2000, 3000, 0, 0, 0), struct.pack(">3H", 1000, 2000, 3000)
            ),
            [255, 0],
        ),
    ],
    ids=["grey 8", "grey 2", "grey 4", "grey 1", "grey 16", "RGB 8", "RGB 16"],
)
def test_the_one_colour_that_a_png_calls_transparent_is_white(data, expected, tmp_path):
    assert seen(tmp_path, data)[:, 0].tolist() == expected


@pytest.mark.parametrize("name", ["image.gif", "image.webp", "image.png", "image.tif"])
def test_of_a_film_the_first_picture_is_seen(name, tmp_path):
    frames = [Image.new("RGB", (4, 1), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert seen(tmp_path, (tmp_path / name).read_bytes(), name).tolist() == [[255, 0, 0]] * 4


def test_a_transparent_gif_is_seen_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "image.gif", transparency=0)
    assert seen(tmp_path, (tmp_path / "image.gif").read_bytes(), "image.gif").tolist() == [
        [255] * 3,
        [200, 0, 0],
    ]


def test_cmyk_is_seen_by_how_much_ink_leaves_of_the_light(tmp_path):
    image = Image.new("CMYK", (16, 16), (51, 102, 0, 51))  # a fifth, two fifths, none; a fifth of black
    found = seen(tmp_path, image, "image.jpg")[8]
    assert np.abs(found - 255 * np.array([0.8 * 0.8, 0.6 * 0.8, 0.8])).max() <= 3  # JPEG loses some


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "L"])
def test_a_picture_that_lies_on_its_side_is_turned_upright(mode, tmp_path):
    image = Image.new(mode, (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # its first row is the right side
    image.save(tmp_path / "image.png", exif=exif)
    assert opened(tmp_path / "image.png").size == (2, 4)


def test_a_file_of_code_is_never_run_as_an_image(tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (2, 2)).save(out, "EPS")  # PostScript, which Pillow would give to Ghostscript
    with pytest.raises(ValueError, match=r"image\.png cannot be read as an image"):
        seen(tmp_path, out.getvalue())


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    Image.new("RGB", (2, 2)).save(tmp_path / "image.png")

    def fail(*_):
        raise struct.error("unpack requires a buffer")

    monkeypatch.setattr(Image.Image, "convert", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"image\.png cannot be read as an image: unpack requires"):
        opened(tmp_path / "image.png")
