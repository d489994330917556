"""Words that several messages share."""


def describe_count(number: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun, such as "1 block" or "2,000 blocks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"
