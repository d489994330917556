"""Wording shared by the messages of sky."""


def describe_count(number: int, noun: str) -> str:
    """Describe how many there are: "1 pair", "2 pairs", "1,000 pairs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
