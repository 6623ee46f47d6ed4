"""Sizes of memory and files as they stand in configurations."""

from __future__ import annotations

import re

import pytest

from hsm_core.config.sizes import limit_in_bytes, mebibytes


@pytest.mark.parametrize(
    ("size", "mib"),
    [
        ("64GB", 64 * 1024),
        ("64G", 64 * 1024),
        ("64GiB", 64 * 1024),
        ("64gb", 64 * 1024),
        (" 64 GB ", 64 * 1024),
        ("512MB", 512),
        ("512M", 512),
        ("512MiB", 512),
        ("1.5GB", 1536),
        ("2TB", 2 * 1024 * 1024),
        ("2TiB", 2 * 1024 * 1024),
        ("2t", 2 * 1024 * 1024),
        ("512KB", 0.5),
        ("512k", 0.5),
        ("512KiB", 0.5),
        ("1048576B", 1),
        ("1b", 2.0**-20),
        ("4000", 4000),
        (4000, 4000),
        (0.5, 0.5),
    ],
)
def test_mebibytes(size: str | float, mib: float) -> None:
    assert mebibytes(size) == mib


@pytest.mark.parametrize(
    "size",
    ["", "GB", "lots", "64GBs", "64 PB", "64iB", "6 4GB", "-1GB", "+1GB", "1,5GB", "1.GB", "1e3", "inf", "nan", "٤GB"],
)
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"the text '{size}' is no size; write for example 512MB")):
        mebibytes(size)


@pytest.mark.parametrize("size", [-1, float("inf"), float("nan"), True, False])
def test_numbers_that_are_no_size(size: float) -> None:
    with pytest.raises(ValueError, match="is no size"):
        mebibytes(size)


@pytest.mark.parametrize("size", [0, "0", "0GB", 0.0, "9" * 400])
def test_sizes_that_nothing_has(size: str | float) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        mebibytes(size)


def test_text_from_outside_is_escaped() -> None:
    with pytest.raises(ValueError, match=re.escape("\\x1b[2J")):
        mebibytes("\x1b[2J")


@pytest.mark.parametrize(
    ("size", "limit"), [("256MB", 256 << 20), (1, 1 << 20), ("1.5KB", 1536), (0, None), ("0", None), (" 0 ", None)]
)
def test_a_limit_in_bytes(size: str | int, limit: int | None) -> None:
    assert limit_in_bytes(size) == limit


@pytest.mark.parametrize("size", ["much", "0B", -1])
def test_what_is_no_limit(size: str | int) -> None:
    with pytest.raises(ValueError, match="is no size"):
        limit_in_bytes(size)
