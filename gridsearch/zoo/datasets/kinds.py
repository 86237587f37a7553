"""Names the kind of a file that is not taken as an image, by its first bytes or, for raw files, by its suffix."""

from __future__ import annotations

from typing import Final

_BRANDS: Final = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"crx ",), "a camera's raw file (CR3)"),
    **dict.fromkeys((b"qt  ", b"isom", b"iso2", b"mp41", b"mp42", b"M4V ", b"avc1", b"3gp4"), "a video"),
}
"""Major brands of files that are boxes of boxes (ISO 14496-12)."""

_BEGINNINGS: Final = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"II\xbc", "JPEG XR"),
    (b"SIMPLE  =", "FITS"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x89HDF", "HDF5"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"icns", "ICNS"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x02\x00", "CUR"),
    (b"\x0a\x05\x01", "PCX"),
    (b"AT&TFORM", "DjVu"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"GIF8", "a damaged GIF"),
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8\xff", "a damaged JPEG"),
    (b"BM", "a damaged BMP"),
    (b"II*\x00", "a TIFF of a kind that is not read"),
    (b"MM\x00*", "a TIFF of a kind that is not read"),
    (b"II+\x00", "a BigTIFF of a kind that is not read"),
    (b"MM\x00+", "a BigTIFF of a kind that is not read"),
)

_RAW: Final = frozenset(
    {*("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "kdc", "mef", "mos", "mrw", "nef", "nrw"),
     *("orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f")}
)  # fmt: skip
"""Suffixes of cameras' raw files: many are TIFFs, of which Pillow would give the thumbnail."""


def raw_file(name: str) -> str | None:
    """Return what a camera's raw file is called, by its name; None for any other file."""
    suffix = name.rpartition(".")[2].casefold()
    return f"a camera's raw file ({suffix.upper()})" if suffix in _RAW and "." in name else None


def named(content: bytes) -> str | None:
    """Return what a file is called, by its first bytes; None if they are not known."""
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[i : i + 4] for i in range(16, min(64, len(content)), 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "a video")
    if content[128:132] == b"DICM":
        return "DICOM"
    if content[:4] == b"RIFF":
        return {b"AVI ": "a video", b"WEBP": "a damaged WebP"}.get(content[8:12])
    head = content[:512].lstrip()
    if head[:4] == b"<svg" or (head[:5] == b"<?xml" and b"<svg" in content[:2048]):
        return "SVG"
    return next((name for start, name in _BEGINNINGS if content.startswith(start)), None)


def sentence(kind: str) -> str:
    """Say that a kind of file is not taken."""
    if kind.startswith("a damaged"):
        return f"not an image ({kind})"
    return f"not an image that is read here ({kind}); convert it to PNG or JPEG"
