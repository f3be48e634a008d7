"""The one place that opens pictures: policies, reward models, reports and checks see the same one.

`load_image` gives its pixels, `data_url` what is sent to a server and decodes to these pixels. Only
the formats of `FORMATS` are opened, so that no file starts another program, and nothing is decoded
whose head claims more pixels than are allowed.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import math
import os
import stat
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from dreamprm.errors import DataError, DreamPRMError

Reference = str | bytes
"""An image: a path, a data URL, an http(s) address, or the encoded bytes of an image file."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 50_000_000
LARGEST_ASPECT = 200
"""Longer side to shorter; image processors of the Qwen family refuse more."""
SMALLEST_SIDE = 28
"""Pixels; servers of the Qwen and GLM families refuse less, or break."""

_LARGEST_FILE = 8  # bytes per allowed pixel: four channels of 16 bits, not compressed
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners put into 16
_TURNS = {  # EXIF's orientation -> what brings the picture upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SENT_AS_THEY_ARE = ("JPEG", "PNG", "WEBP")
_PLAIN_MODES = ("1", "L", "P", "RGB")
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_SIGNATURES = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"BM": "bmp",
}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

# In the environment, so that processes that this one starts keep to them.
_PIXELS_VARIABLE, _HOSTS_VARIABLE = "DREAMPRM_MAX_IMAGE_PIXELS", "DREAMPRM_REMOTE_IMAGES"
_WAIT_S, _FETCH_S = 20.0, 60.0  # until a server says something; until it has sent all

A = TypeVar("A")
B = TypeVar("B")


def set_image_limits(max_pixels: int = MAX_PIXELS, remote_hosts: Iterable[str] = ()) -> None:
    """Limit the images of this process and of those that it starts.

    Args:
        max_pixels: an image with more is refused before it is decoded.
        remote_hosts: those that images named by an http(s) address are fetched from.
    """
    if max_pixels < 1:
        raise DreamPRMError(f"max_image_pixels is {max_pixels}; it must be above 0")
    os.environ[_PIXELS_VARIABLE] = str(max_pixels)
    os.environ[_HOSTS_VARIABLE] = " ".join(remote_hosts)
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit is not to be the narrower one
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def load_image(reference: Reference, root: Path | None = None) -> Image.Image:
    """Read an image as upright RGB.

    The first frame, turned as its EXIF says. Transparency is laid over white: many published
    diagrams are black lines on a transparent ground, and dropping alpha would turn them into black
    squares. Greyscale of more than 8 bits and floats are scaled from the range that they use.
    Strips beyond `LARGEST_ASPECT` are padded with white, and what has a side below `SMALLEST_SIDE`
    is enlarged.

    Args:
        root: folder that a relative path starts from.

    Raises:
        DataError: the image is missing, too large, of no known format, or damaged.
    """
    return _read(image_bytes(reference, root), _name(reference, root))[0]


def data_url(reference: Reference) -> str:
    """An image as a data URL in which any server sees what `load_image` gives.

    The file's own bytes where that is so; else its pixels as PNG: other formats, more than 8 bits,
    transparency (which some servers turn black), animation, turned pictures, and sizes that image
    processors do not take.

    Raises:
        DataError: see `load_image`.
    """
    data, name = image_bytes(reference), _name(reference)
    if kind := _plain_kind(data, name):
        return _url(data, kind)
    return _url(as_png(_read(data, name)[0]), "png")


def as_png(image: Image.Image) -> bytes:
    """A decoded image as the bytes of a PNG file, which loses nothing."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # a fifth of the usual time
    return buffer.getvalue()


def image_area(reference: Reference) -> int:
    """Pixels of an image by its head; 0 where it cannot be read, which whoever loads it tells."""
    try:
        with _opened(image_bytes(reference), _name(reference)) as image:
            return image.width * image.height
    except DataError:
        return 0


def image_format(data: bytes) -> str:
    """The format of encoded bytes by their head, e.g. `png`.

    Raises:
        DataError: they are no image of a known format, or too large a one.
    """
    with _opened(data, _name(data)) as image:
        return str(image.format).lower()


def image_bytes(reference: Reference, root: Path | None = None) -> bytes:
    """An image's bytes as they are in its file, or at its address.

    Raises:
        DataError: there is no such file, it is none, it is too large, or its host is not allowed.
    """
    if isinstance(reference, bytes):
        return reference
    if is_data_url(reference):
        return decode_image(reference)
    if is_remote(reference):
        return fetch_image(reference)
    name = _name(reference, root)
    try:
        facts = Path(name).stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"image {name} is no file; correct the path", field="images")
        _check_bytes(facts.st_size, name)
        return Path(name).read_bytes()
    except FileNotFoundError:
        message = f"image {name} does not exist; restore the file or correct the path"
        raise DataError(message, field="images") from None
    except (OSError, ValueError) as error:  # ValueError: no name that the system can take
        cause = error.strerror if isinstance(error, OSError) else error
        message = f"image {name} cannot be read: {cause}; restore the file or correct the path"
        raise DataError(message, field="images") from None


class Checked(NamedTuple):
    """What reading an image to its end has shown.

    Attributes:
        reference: stands for it from now on; of one on the net, the bytes that were fetched.
        error: why it cannot be used.
        was: its name and size, where it had to be enlarged or padded.
    """

    reference: Reference
    error: DataError | None = None
    was: str = ""


def check_image(reference: Reference) -> Checked:
    """Read an image to its end."""
    try:
        data, name = image_bytes(reference), _name(reference)
        picture, size = _read(data, name)
    except DataError as error:
        return Checked(reference, error)
    was = "" if picture.size == size else f"{name}, {size[0]} x {size[1]}"
    fetched = isinstance(reference, str) and is_remote(reference)
    return Checked(data if fetched else reference, was=was)


def fitted_images(count: int) -> str:
    """What is told of images that are shown in another size than that of their files."""
    return (
        f"images with a side below {SMALLEST_SIDE} pixels, or {LARGEST_ASPECT} times as long as "
        f"wide, are enlarged or padded with white: {count}"
    )


def in_threads(do: Callable[[A], B], items: Iterable[A]) -> Generator[B, None, None]:
    """What `do` gives of each item, in order; a thread per core, and some items at once."""
    left = iter(items)
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(left, 16 * threads)):
            yield from pool.map(do, chunk)


def is_remote(reference: str) -> bool:
    """Is it an address on the net?"""
    return "://" in reference and not is_data_url(reference)


def may_be_fetched(url: str) -> bool:
    """Is it an http(s) address of a host that images may come from?"""
    try:
        parts = urlsplit(url)
        names = {parts.hostname, parts.netloc.lower()}
    except ValueError:
        return False
    allowed = os.environ.get(_HOSTS_VARIABLE, "").lower().split()
    return parts.scheme in ("http", "https") and not names.isdisjoint(allowed)


def is_data_url(reference: str) -> bool:
    """Does it hold the image itself?"""
    return reference[:5].lower() == "data:"


def encode_image(data: bytes) -> str:
    """Encoded image bytes as a data URL."""
    kind = next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)
    return _url(data, kind or "x-unknown")


def decode_image(url: str) -> bytes:
    """The bytes of a data URL, also of one with line breaks, without padding, or for URLs.

    Raises:
        DataError: it is none.
    """
    head, comma, body = url.partition(",")
    if not comma or not head.rstrip().lower().endswith(";base64"):
        raise DataError("a data URL must be 'data:image/...;base64,...'", field="images")
    code = b"".join(unquote_to_bytes(body).split()).rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(code + b"=" * (-len(code) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"a data URL is not valid base64: {error}", field="images") from error


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _name(reference: Reference, root: Path | None = None) -> str:
    """What errors call an image; of a file, its path."""
    if isinstance(reference, bytes):
        return f"<{len(reference)} bytes>"
    if is_data_url(reference) or is_remote(reference):
        return reference if len(reference) <= 200 else f"{reference[:200]}..."
    return reference if root is None else str(root / reference)


def _max_pixels() -> int:
    return int(os.environ.get(_PIXELS_VARIABLE, MAX_PIXELS))


def _check_bytes(size: int, name: str) -> None:
    if size > _LARGEST_FILE * _max_pixels():
        message = f"image {name} has {size:,} bytes, more than an image of {_max_pixels():,} pixels"
        raise DataError(f"{message}; shrink it, or raise max_image_pixels", field="images")


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # older Pillows know fewer


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """An image whose head is read and whose size is allowed; all that goes wrong is a DataError."""
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            if min(image.size) < 1:
                raise ValueError("it has no pixels")
            if max(image.size) * max(min(image.size), _thinnest(image)) > _max_pixels():
                size = f"{image.width:,} x {image.height:,} pixels"
                raise Image.DecompressionBombError(size)
            yield image
    except Image.DecompressionBombError as error:
        message = f"image {name} has too many pixels ({error}; the limit is {_max_pixels():,}); "
        raise DataError(f"{message}shrink it, or raise max_image_pixels", field="images") from None
    except UnidentifiedImageError:
        message = f"image {name} cannot be read: it is none of {', '.join(FORMATS)}"
        raise DataError(f"{message}; convert it, or fetch it again", field="images") from None
    except Exception as error:  # Pillow raises nearly everything on damaged files
        message = f"image {name} cannot be read: {str(error) or type(error).__name__}"
        raise DataError(f"{message}; fetch it again", field="images") from None


def _read(data: bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
    """The picture that everyone sees, and the size that it had before it was enlarged or padded."""
    with _opened(data, name) as image:
        image.load()
        picture = _rgb(image)
        if (orientation := _orientation(image)) in _TURNS:
            picture = picture.transpose(_TURNS[orientation])
    picture.info = {}
    return _fitted(picture), picture.size


def _orientation(image: Image.Image) -> int:
    """EXIF's; 1 (upright) where that is damaged. Pillow has turned TIFF by itself."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        picture = Image.new("RGB", rgba.size, "white")
        picture.paste(rgba, mask=rgba)
        return picture
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits, or of floats, scaled from the range that it uses."""
    import numpy as np  # takes a while, and few images need it

    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        values = np.nan_to_num(values, copy=False, posinf=0, neginf=0)
    brightest = float(values.max())
    ranges = [1.0] * (image.mode == "F") + [2.0**bits - 1 for bits in _DEPTHS] + [brightest]
    whole = next(top for top in ranges if brightest <= top)
    values *= 255 / whole
    grey = np.rint(values.clip(0, 255, out=values), out=values).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _thinnest(image: Image.Image) -> int:
    return math.ceil(max(image.size) / LARGEST_ASPECT)


def _fitted(image: Image.Image) -> Image.Image:
    """The image as image processors take it: not too thin (padded with white), not too small."""
    thinnest = _thinnest(image)
    if min(image.size) < thinnest:
        width, height = (max(side, thinnest) for side in image.size)
        ground = Image.new("RGB", (width, height), "white")
        ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        image = ground
    if (shortest := min(image.size)) < SMALLEST_SIDE:
        width, height = (round(side * SMALLEST_SIDE / shortest) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image


def _plain_kind(data: bytes, name: str) -> str | None:
    """The kind of an image that any server sees as we do; None of others."""
    with _opened(data, name) as image:
        plain = (
            image.format in _SENT_AS_THEY_ARE
            and image.mode in _PLAIN_MODES
            and "transparency" not in image.info
            and getattr(image, "n_frames", 1) == 1
            and _orientation(image) not in _TURNS
            and min(image.size) >= max(_thinnest(image), SMALLEST_SIDE)
        )
        if image.format == "PNG":  # bits per channel; what may turn it and stand behind the pixels
            plain = plain and data[24] <= 8 and not any(mark in data for mark in _PNG_METADATA)
        return str(image.format).lower() if plain else None


class _OnAllowedHosts(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *told: Any) -> Any:
        if not may_be_fetched(url := told[-1]):
            raise OSError(f"it leads on to {url[:200]}, a host that is not allowed")
        return super().redirect_request(*told)


def fetch_image(url: str, *handlers: urllib.request.BaseHandler) -> bytes:
    """The bytes at an address of an allowed host.

    Args:
        handlers: of urllib, in place of its own.

    Raises:
        DataError: the host is not allowed, or does not hand the image out.
    """
    name = _name(url)
    if not may_be_fetched(url):
        raise DataError(
            f"image {name} is an address on the net; fetch it and name the file, or name its host "
            "by --allow_remote_images",
            field="images",
        )
    start, data = time.monotonic(), bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "dreamprm"})
        opener = urllib.request.build_opener(_OnAllowedHosts, *handlers)
        with opener.open(request, timeout=_WAIT_S) as reply:
            while part := reply.read1(1 << 16):
                data += part
                _check_bytes(len(data), name)
                if time.monotonic() - start > _FETCH_S:
                    raise TimeoutError(f"not all there after {_FETCH_S:.0f} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"image {name} cannot be fetched: {str(error) or type(error).__name__}; "
        raise DataError(f"{message}try again, or name a file", field="images") from None
    return bytes(data)
