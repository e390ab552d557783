import os
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import genxai_core as gx
from genxai_core import GenxaiWarning
from genxai_core.errors import BadParameter, InputError


def colour(path, rgb=(200, 40, 90), size=(20, 20), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, rgb).save(path, **save)
    return path


def noise(path, size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(
        64, 192, (size[1], size[0], 3), dtype=np.uint8
    )  # bicubic overshoots no end
    Image.fromarray(levels).save(path)
    return levels


def folder(root, **kw):
    return gx.create("dataset/folder", root=root, **{"size": 16, **kw})


@pytest.fixture
def pets(tmp_path):
    for i in range(3):
        colour(tmp_path / "dog" / f"{i}.png", (10 * i, 0, 0))
        colour(tmp_path / "cat" / "deeper" / f"{i}.JPG", (0, 10 * i, 0))
    return tmp_path


def test_labels_are_subfolders_and_the_order_is_that_of_the_paths(pets):
    (pets / "notes.txt").write_text("not an image")
    (pets / "empty").mkdir()
    colour(pets / ".thumbnails" / "x.png")
    (pets / "dog" / "._0.png").write_bytes(b"what a Mac leaves behind")
    data = folder(pets)
    assert data.class_names == ("cat", "dog")
    assert data[:].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [f.relative_to(pets).as_posix() for f in data.files] == [
        *(f"cat/deeper/{i}.JPG" for i in range(3)),
        *(f"dog/{i}.png" for i in range(3)),
    ]
    assert torch.equal(data[[4]].images[0, :, 8, 8], torch.tensor([10 / 255 * 2 - 1, -1, -1]))


def test_without_subfolders_there_are_no_labels(tmp_path):
    colour(tmp_path / "b.png", (255, 255, 255))
    colour(tmp_path / "a.bmp", (0, 0, 0))
    samples = folder(tmp_path, value_range=[0, 1])[:]
    assert samples.labels is None
    assert samples.class_names == ()
    assert samples.images[:, 0, 0, 0].tolist() == [0.0, 1.0]


def test_images_beside_class_folders_are_refused(pets):
    colour(pets / "loose.png")
    with pytest.raises(InputError, match=r"1 images lie beside the class folders \(such as loose.png\)"):
        folder(pets)


def test_the_central_square_is_resized_with_antialiasing(tmp_path):
    levels = noise(tmp_path / "a.png", size=(40, 30))
    exact = folder(tmp_path, size=30, value_range=[0, 1])[0].images[0]
    want = torch.from_numpy(levels[:, 5:35].transpose(2, 0, 1) / 255).float()
    assert torch.allclose(exact, want, atol=1e-6)
    half = folder(tmp_path, size=15, value_range=[0, 1])[0].images[0]
    tensor = want[None]
    smooth = torch.nn.functional.interpolate(tensor, (15, 15), mode="bicubic", align_corners=False, antialias=True)[0]
    picked = torch.nn.functional.interpolate(tensor, (15, 15), mode="bicubic", align_corners=False)[0]
    # at the sides Pillow's filter still sees the pixels beyond the crop, and ours does not
    assert float((half - smooth)[:, :, 2:-2].abs().max()) < 0.01
    assert float((half - picked).abs().max()) > 0.1


def test_grey_transparent_turned_and_16_bit_images(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.fromarray(np.full((20, 20), 128 * 257, np.uint16)).save(tmp_path / "b.png")
    turned = Image.new("RGB", (20, 20))
    turned.paste((255, 255, 255), (0, 0, 20, 10))  # bright above …
    exif = Image.Exif()
    exif[0x0112] = 3  # … and to be shown upside down
    turned.save(tmp_path / "c.png", exif=exif)
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 255] * 256)
    palette.save(tmp_path / "d.png", transparency=0)
    data = folder(tmp_path, channels=1, value_range=[0, 255])
    assert data.image_shape == (1, 16, 16)
    images = data[:].images[:, 0]
    assert bool((images[0] == 255).all())  # laid on white
    assert bool((images[1] == 128).all())
    assert images[2, 1, 1] == 0
    assert images[2, 14, 14] == 255
    assert bool((images[3] == 255).all())


# -- broken images --------------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])


def png_that_claims(path, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


@pytest.fixture
def ten(tmp_path):
    for i in range(10):
        noise(tmp_path / "a" / f"{i}.png", seed=i)
    return tmp_path


def test_broken_images_are_named_counted_and_refused(ten):
    truncate(ten / "a" / "3.png")
    (ten / "a" / "5.png").write_text("<html>404</html>")
    (ten / "a" / "6.png").write_bytes(b"")
    png_that_claims(ten / "a" / "7.png", 2**20, 2**20)
    with pytest.raises(InputError) as caught:
        folder(ten)
    text = str(caught.value)
    assert "4 of 10 images are broken" in text
    assert re.findall(r"a/\d\.png", text) == ["a/3.png", "a/5.png", "a/6.png"]
    assert "and 1 more" in text
    assert "max_broken: 0.4" in text
    assert "\n" not in text


def test_broken_images_are_skipped_with_a_warning_up_to_the_stated_share(ten):
    whole = folder(ten)[[0, 1, 2, 4, 5, 6, 7, 8, 9]].images
    truncate(ten / "a" / "3.png")
    with pytest.warns(GenxaiWarning, match=r"1 of 10 images are broken: a/3.png .*skipped"):
        data = folder(ten, max_broken=0.1)
    assert len(data) == 9
    assert torch.equal(data[:].images, whole)
    with pytest.raises(InputError, match=r"max_broken: 0.1 \(it is 0.09\)"):
        folder(ten, max_broken=0.09)


def test_a_class_keeps_its_number_when_all_its_images_are_broken(pets):
    for file in (pets / "cat" / "deeper").iterdir():
        file.write_bytes(b"")
    with pytest.warns(GenxaiWarning, match="3 of 6"):
        data = folder(pets, max_broken=0.5)
    assert data.class_names == ("cat", "dog")
    assert data[:].labels.tolist() == [1, 1, 1]


def test_nothing_but_broken_images_is_an_error_whatever_is_allowed(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(InputError, match="1 of 1 images are broken"):
        folder(tmp_path, max_broken=1.0)


def test_a_decompression_bomb_is_a_broken_image(tmp_path, monkeypatch):
    noise(tmp_path / "a.png", size=(100, 100))
    colour(tmp_path / "b.png", size=(100, 101))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    with pytest.raises(InputError, match=r"1 of 2 .*b.png \(100x101 pixels, more than the limit of 10,000\)"):
        folder(tmp_path)


def test_another_format_under_an_image_name_reaches_no_other_decoder(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png", format="EPS")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png", format="GIF")
    with pytest.raises(InputError, match="2 of 2 images are broken"):
        folder(tmp_path)


def test_images_are_read_when_asked_for_and_a_later_loss_is_told(ten):
    data = folder(ten)
    shutil.copy(ten / "a" / "1.png", ten / "a" / "0.png")
    assert torch.equal(data[0].images, data[1].images)
    (ten / "a" / "9.png").unlink()
    with pytest.raises(InputError, match=r"9.png: could be read before and cannot now \(FileNotFoundError"):
        data[9]


# -- links and wrong roots --------------------------------------------------------------------------------------------


def test_links_that_lead_out_are_refused_and_links_within_are_followed(tmp_path):
    secret = colour(tmp_path / "outside" / "secret.png")
    root = tmp_path / "root"
    inner = colour(root / "a" / "0.png")
    (root / "a" / "1.png").symlink_to(inner)
    assert len(folder(root)) == 2
    (root / "a" / "2.png").symlink_to(secret)
    with pytest.raises(InputError, match=r"2.png: this link leads out of"):
        folder(root)
    (root / "a" / "2.png").unlink()
    (root / "b").symlink_to(secret.parent)
    with pytest.raises(InputError, match=r"root/b: a link to a folder is not followed"):
        folder(root)


def test_the_root_itself_may_be_a_link(tmp_path):
    colour(tmp_path / "real" / "0.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(folder(tmp_path / "link")) == 1


def test_what_is_no_regular_file_is_refused(tmp_path):
    colour(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b.png: not a regular file"):
        folder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_class(pets, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # permissions bind no superuser, who may be running this
    with pytest.raises(InputError, match="cat: cannot be read: Permission denied"):
        folder(pets)


def test_wrong_roots_and_parameters(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        folder(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no image in it; these count: .bmp, .jpeg"):
        folder(tmp_path)
    for wrong in ({"size": 4}, {"channels": 2}, {"max_broken": 1.5}, {"value_range": [1, 0]}, {"max_broken": "some"}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            folder(tmp_path, **wrong)
