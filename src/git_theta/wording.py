"""Sizes and counts as people read them."""

__all__ = ["count", "size"]


def size(size_bytes: int) -> str:
    """A size, "1.9 MB", in powers of ten as disks are sold and models are published."""
    value = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 999.95 or unit == "PB":
            break
        value /= 1000
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """A number and its noun, "1 file" or "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
