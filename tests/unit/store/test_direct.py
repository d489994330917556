"""Files written past the page cache: the bytes are those of the content, wherever it begins and ends."""

from pathlib import Path

import numpy as np
import pytest

from scimill.store.direct import PAGE, AlignedFile, aligned, allocate_file, use_direct


@pytest.mark.parametrize("direct", [False, True])
def test_bytes_arrive_at_their_place(direct: bool, tmp_path: Path) -> None:
    path, size = tmp_path / "file", 8 * PAGE
    assert use_direct(tmp_path, wanted=direct) == direct
    assert allocate_file(path, size)
    assert path.stat().st_blocks * 512 >= size
    content, expected = aligned(3 * PAGE + 100), np.zeros(size, dtype=np.uint8)
    content[:] = np.random.default_rng(1).integers(0, 256, content.size)
    file = AlignedFile(path, direct=direct)
    for piece, offset in (
        (content, 0),
        (content[:100], 7000),
        (content[: 2 * PAGE], 4 * PAGE),
        (content[1:], 5 * PAGE - 1),
    ):
        file.write(piece[: size - offset], offset)
        expected[offset : offset + piece.size] = piece[: size - offset]
    file.close()
    assert path.read_bytes() == expected.tobytes()
