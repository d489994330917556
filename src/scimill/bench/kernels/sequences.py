"""BERT training instances as tf.train.Example records: their contents, lengths and bytes.

A record is a protocol buffer framed as TFRecord: length (u64), its masked CRC (u32), data, masked CRC of the data.
The data are a map of seven features with keys in alphabetical order, as in the deterministic serialisation of protocol
buffers. Numbers are packed varints (protobuf.dev/programming-guides/encoding).
"""

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scimill.bench.kernels.counter import cubed, high_half, index_below, low_half, word

TOKENS, MASKED = 512, 76  # lengths of the features: max_seq_length and max_predictions_per_seq of the trainer
VOCABULARY = 30_522  # BERT base and large, uncased
CLS, SEP, MASK = 101, 102, 103  # tokens of that vocabulary
FIRST_WORD = 1000  # smaller tokens are not words
FRAME = 16  # bytes of a record besides its data
MOST_BYTES = 4096  # exceeds every record: 3 · 512 + 512 + 512 + 3 · 76 + 2 · 76 + 4 · 76 + headers

_WORDS = np.uint64(320)  # per record: 2 for its shape, 38 for its masked positions, 24 spare, 256 for its tokens
_POSITIONS, _IDS = np.uint64(2), np.uint64(64)
_HALF = np.uint64(0xFFFFFFFF)

_NAMES = (
    b"input_ids", b"input_mask", b"masked_lm_ids", b"masked_lm_positions", b"masked_lm_weights",
    b"next_sentence_labels", b"segment_ids",
)  # fmt: skip
_KEYS = np.frombuffer(b"".join(_NAMES), dtype=np.uint8).copy()
_STARTS = np.cumsum([0, *(len(name) for name in _NAMES)])
_INPUT_IDS, _INPUT_MASK, _MASKED_IDS, _MASKED_POSITIONS, _MASKED_WEIGHTS, _LABELS, _SEGMENTS = range(7)
_BYTES_TAG, _VALUE_TAG = 0x0A, 0x12  # fields 1 and 2, length-delimited
_INT64_LIST, _FLOAT_LIST = 0x1A, 0x12  # fields 3 and 2 of tf.train.Feature
_MASK_DELTA = 0xA282EAD8  # of TFRecord's masked CRC: tensorflow/core/lib/hash/crc32c.h

Array = NDArray[np.int64]
Raw = NDArray[np.uint8]
Varints = NDArray[np.uint32]
Crc = TypeVar("Crc", int, NDArray[np.uint64])


class Shape(NamedTuple):
    """Numbers of tokens, first-sentence tokens and masked tokens of an instance, and its label."""

    length: int
    first: int
    masked: int
    label: int


@njit(inline="always")
def _half(key: np.uint64, base: np.uint64, number: int) -> np.uint64:
    """Return the 32-bit half `number` of the words from `base` on."""
    place = np.uint64(number)
    return low_half(word(key, base + (place >> np.uint64(1))) >> ((place & np.uint64(1)) << np.uint64(5)))


@njit(nogil=True)
def _draw_random(key: np.uint64, base: np.uint64, ids: Array, positions: Array, truths: Array) -> Shape:
    """Draw an instance as the original generator does: tokens in random order, none replaced by [MASK]."""
    random = word(key, base)
    length = index_below(low_half(random), TOKENS)
    first = index_below(high_half(random), length)
    masked = length * 15 // 100
    for i in range((length + 1) // 2):
        random = word(key, base + _IDS + np.uint64(i))
        ids[2 * i] = index_below(low_half(random), VOCABULARY)
        ids[2 * i + 1] = index_below(high_half(random), VOCABULARY)
    for i in range(masked):
        positions[i] = index_below(_half(key, base + _POSITIONS, i), length)
        truths[i] = ids[positions[i]]
    return Shape(length, first, masked, index_below(low_half(word(key, base + np.uint64(1))), 2))


@njit(inline="always")
def _frequent(bits: np.uint64) -> Any:
    """Draw a word; frequent words have small numbers."""
    return FIRST_WORD + index_below(cubed(bits), VOCABULARY - FIRST_WORD)


@njit(nogil=True)
def _draw_sentences(key: np.uint64, base: np.uint64, ids: Array, positions: Array, truths: Array) -> Shape:
    """Draw [CLS] A [SEP] B [SEP], masked as in BERT's pre-training data (Devlin et al. 2019, section 3.1)."""
    random = word(key, base)
    bits = low_half(random)
    # The mean of u and u² gives records of 2.5 kB on average, as in the real set.
    length = 8 + index_below((bits + ((bits * bits) >> np.uint64(32))) >> np.uint64(1), TOKENS - 7)
    first = 3 + index_below(high_half(random), length - 5)
    masked = min(np.int64(MASKED), max(np.int64(1), (length * 15 + 50) // 100))
    for i in range((length + 1) // 2):
        random = word(key, base + _IDS + np.uint64(i))
        ids[2 * i] = _frequent(low_half(random))
        ids[2 * i + 1] = _frequent(high_half(random))
    ids[0], ids[first - 1], ids[length - 1] = CLS, SEP, SEP
    shape = Shape(length, first, masked, index_below(low_half(word(key, base + np.uint64(1))), 2))
    _mask(key, base + _POSITIONS, shape, ids, positions, truths)
    return shape


@njit(nogil=True)
def _mask(key: np.uint64, base: np.uint64, shape: Shape, ids: Array, positions: Array, truths: Array) -> None:
    """Choose one token in each of `masked` equal ranges; of 10, 8 become [MASK] and 1 another word."""
    shown, tokens, share = np.empty(MASKED, np.int64), shape.length - 2, 1.0 / shape.masked
    for i in range(shape.masked):
        bits = _half(key, base, i)
        low, high = 1 + int((tokens * i + 0.5) * share), 1 + int((tokens * (i + 1) + 0.5) * share)  # rounded down
        drawn = low + index_below(bits, high - low)
        beside = low if drawn > low else min(low + 1, high - 1)
        positions[i] = beside if drawn == shape.first - 1 else drawn
        fate, other = (bits & np.uint64(0xFFFF)) % np.uint64(10), _frequent((bits * np.uint64(0x9E3779B1)) & _HALF)
        shown[i] = MASK if fate < np.uint64(8) else other if fate == np.uint64(8) else 0
    for i in range(shape.masked):
        truths[i] = ids[positions[i]]
        ids[positions[i]] = shown[i] if shown[i] else truths[i]


@njit(nogil=True)
def _draw(key: np.uint64, base: np.uint64, is_random: bool, ids: Array, positions: Array, truths: Array) -> Shape:
    if is_random:
        return _draw_random(key, base, ids, positions, truths)
    return _draw_sentences(key, base, ids, positions, truths)


@njit(inline="always")
def _varint_size(value: int) -> int:
    return 1 + int(value > 127) + int(value > 16383)


@njit(inline="always")
def _entry_size(feature: int, packed: int) -> int:
    """Return the bytes of a feature's map entry, without tag and length, given those of its packed values."""
    values = 1 + _varint_size(packed) + packed
    content = 1 + _varint_size(values) + values
    return 2 + int(_STARTS[feature + 1] - _STARTS[feature]) + 1 + _varint_size(content) + content


@njit(inline="always")
def _whole_entry_size(feature: int, packed: int) -> int:
    entry = _entry_size(feature, packed)
    return 1 + _varint_size(entry) + entry


class PackedSizes(NamedTuple):
    """Bytes of the packed values whose size varies."""

    ids: int
    truths: int
    positions: int


@njit(nogil=True)
def _packed_sizes(shape: Shape, ids: Array, positions: Array, truths: Array) -> PackedSizes:
    size_ids, size_truths, size_positions = TOKENS, MASKED, MASKED
    for i in range(shape.length):
        size_ids += int(ids[i] > 127) + int(ids[i] > 16383)
    for i in range(shape.masked):
        size_truths += int(truths[i] > 127) + int(truths[i] > 16383)
        size_positions += int(positions[i] > 127)
    return PackedSizes(size_ids, size_truths, size_positions)


@njit(nogil=True)
def _features_size(packed: PackedSizes) -> int:
    """Return the bytes of all entries."""
    return (
        _whole_entry_size(_INPUT_IDS, packed.ids)
        + _whole_entry_size(_INPUT_MASK, TOKENS)
        + _whole_entry_size(_MASKED_IDS, packed.truths)
        + _whole_entry_size(_MASKED_POSITIONS, packed.positions)
        + _whole_entry_size(_MASKED_WEIGHTS, 4 * MASKED)
        + _whole_entry_size(_LABELS, 1)
        + _whole_entry_size(_SEGMENTS, TOKENS)
    )


@njit(cache=True, nogil=True)
def lengths(out: Array, key: np.uint64, first: int, is_random: bool) -> None:
    """Fill `out` with the lengths in bytes of the framed records from `first` on."""
    ids, positions, truths = np.empty(TOKENS + 1, np.int64), np.empty(MASKED, np.int64), np.empty(MASKED, np.int64)
    for i in range(len(out)):
        base = (np.uint64(first) + np.uint64(i)) * _WORDS
        shape = _draw(key, base, is_random, ids, positions, truths)
        features = _features_size(_packed_sizes(shape, ids, positions, truths))
        out[i] = FRAME + 1 + _varint_size(features) + features


@njit(inline="always")
def _put_number(out: Raw, place: np.uint64, value: np.uint64, size: int) -> None:
    """Write a little-endian number."""
    for i in range(size):
        out[place + np.uint64(i)] = np.uint8((value >> np.uint64(8 * i)) & np.uint64(255))


@njit(inline="always")
def _varint(value: np.uint32) -> np.uint32:
    """Return the varint of a number below 2^21 in the lower three bytes, and its length in the fourth."""
    second, third = value >> np.uint32(7), value >> np.uint32(14)
    has_second, has_third = np.uint32(second > 0), np.uint32(third > 0)
    text = (value & np.uint32(127)) | (has_second << np.uint32(7)) | ((second & np.uint32(127)) << np.uint32(8))
    text |= (has_third << np.uint32(15)) | (third << np.uint32(16))
    return text | ((np.uint32(1) + has_second + has_third) << np.uint32(24))


@njit(inline="always")
def _put_varint(out: Raw, place: np.uint64, varint: np.uint64) -> np.uint64:
    """Write all four bytes of a `_varint` result; the next value overwrites the bytes beyond its length."""
    _put_number(out, place, varint, 4)
    return place + (varint >> np.uint64(24))


@njit(inline="always")
def _put_length(out: Raw, place: np.uint64, tag: int, length: int) -> np.uint64:
    out[place] = tag
    return _put_varint(out, place + np.uint64(1), np.uint64(_varint(np.uint32(length))))


@njit(nogil=True)
def _open(out: Raw, place: np.uint64, feature: int, tag: int, packed: int) -> np.uint64:
    """Write an entry up to its packed values."""
    start, stop = _STARTS[feature], _STARTS[feature + 1]
    values = 1 + _varint_size(packed) + packed
    content = 1 + _varint_size(values) + values
    place = _put_length(out, place, _BYTES_TAG, _entry_size(feature, packed))
    place = _put_length(out, place, _BYTES_TAG, stop - start)
    for i in range(start, stop):
        out[place] = _KEYS[i]
        place += np.uint64(1)
    place = _put_length(out, place, _VALUE_TAG, content)
    place = _put_length(out, place, tag, values)
    return _put_length(out, place, _BYTES_TAG, packed)


@njit(inline="always")
def _put_bytes(out: Raw, place: np.uint64, count: int, value: int) -> np.uint64:
    for i in range(count):
        out[place + np.uint64(i)] = value
    return place + np.uint64(count)


@njit(nogil=True)
def _varints(out: Varints, values: Array, count: int) -> None:
    """Convert numbers to varints, separately from writing them, so that the compiler vectorises the loop."""
    for i in range(count):
        out[i] = _varint(np.uint32(values[i]))


@njit(inline="always")
def _put_values(out: Raw, place: np.uint64, varints: Varints, count: int, size: int) -> np.uint64:
    """Write `count` numbers, then zeros up to `size` of them."""
    for i in range(count):
        place = _put_varint(out, place, np.uint64(varints[i]))
    return _put_bytes(out, place, size - count, 0)


@njit(nogil=True)
def _put_features(
    out: Raw, place: np.uint64, shape: Shape, packed: PackedSizes, ids: Varints, positions: Varints, truths: Varints
) -> np.uint64:
    place = _put_values(out, _open(out, place, _INPUT_IDS, _INT64_LIST, packed.ids), ids, shape.length, TOKENS)
    place = _put_bytes(out, _open(out, place, _INPUT_MASK, _INT64_LIST, TOKENS), shape.length, 1)
    place = _put_bytes(out, place, TOKENS - shape.length, 0)
    place = _put_values(out, _open(out, place, _MASKED_IDS, _INT64_LIST, packed.truths), truths, shape.masked, MASKED)
    place = _open(out, place, _MASKED_POSITIONS, _INT64_LIST, packed.positions)
    place = _put_values(out, place, positions, shape.masked, MASKED)
    place = _open(out, place, _MASKED_WEIGHTS, _FLOAT_LIST, 4 * MASKED)
    end = _put_bytes(out, place, 4 * MASKED, 0)
    for i in range(shape.masked):  # 1.0 is 0x3F800000
        out[place + np.uint64(4 * i + 2)] = 0x80
        out[place + np.uint64(4 * i + 3)] = 0x3F
    place = _put_bytes(out, _open(out, end, _LABELS, _INT64_LIST, 1), 1, shape.label)
    place = _put_bytes(out, _open(out, place, _SEGMENTS, _INT64_LIST, TOKENS), shape.first, 0)
    place = _put_bytes(out, place, shape.length - shape.first, 1)
    return _put_bytes(out, place, TOKENS - shape.length, 0)


@njit(cache=True, nogil=True)
def encode(
    out: Raw, at: int, limit: int, key: np.uint64, first: int, last: int, is_random: bool,
    length_crcs: NDArray[np.uint32], starts: Array,
) -> int:  # fmt: skip
    """Write the records `first` to `last` - 1 at out[at:], until one ends at or beyond `limit`.

    `put_checksums` writes the CRCs of the data.

    Parameters
    ----------
    out, at, limit : where to write.
    key, first, last, is_random : which records to write.
    length_crcs : masked CRC of every length below `MOST_BYTES`.
    starts : int64, filled with the first byte of each record and the end of the last one.

    Returns
    -------
    Number of records written.
    """
    ids, positions, truths = np.empty(TOKENS + 1, np.int64), np.empty(MASKED, np.int64), np.empty(MASKED, np.int64)
    varints = np.empty((3, TOKENS), np.uint32)
    place, count, record = np.uint64(at), 0, first
    starts[0] = at
    while place < np.uint64(limit) and record < last:
        base = np.uint64(record) * _WORDS
        shape = _draw(key, base, is_random, ids, positions, truths)
        packed = _packed_sizes(shape, ids, positions, truths)
        features = _features_size(packed)
        data = 1 + _varint_size(features) + features
        _put_number(out, place, np.uint64(data), 8)
        _put_number(out, place + np.uint64(8), np.uint64(length_crcs[data]), 4)
        place = _put_length(out, place + np.uint64(12), _BYTES_TAG, features)
        _varints(varints[0], ids, shape.length)
        _varints(varints[1], positions, shape.masked)
        _varints(varints[2], truths, shape.masked)
        place = _put_features(out, place, shape, packed, varints[0], varints[1], varints[2]) + np.uint64(4)
        record, count = record + 1, count + 1
        starts[count] = place
    return count


class Features(NamedTuple):
    """Features of instances as arrays of shape (instances, ...), as in the HDF5 files."""

    input_ids: NDArray[np.int32]
    input_mask: NDArray[np.int8]
    segment_ids: NDArray[np.int8]
    masked_lm_positions: NDArray[np.int32]
    masked_lm_ids: NDArray[np.int32]
    next_sentence_labels: NDArray[np.int8]


@njit(cache=True, nogil=True)
def fill(out: Features, key: np.uint64, first: int, is_random: bool) -> None:
    """Fill `out` with the features of the instances from `first` on."""
    ids, positions, truths = np.empty(TOKENS + 1, np.int64), np.empty(MASKED, np.int64), np.empty(MASKED, np.int64)
    for i in range(len(out.input_ids)):
        base = (np.uint64(first) + np.uint64(i)) * _WORDS
        shape = _draw(key, base, is_random, ids, positions, truths)
        for j in range(TOKENS):
            out.input_ids[i, j] = ids[j] if j < shape.length else 0
            out.input_mask[i, j] = j < shape.length
            out.segment_ids[i, j] = shape.first <= j < shape.length
        for j in range(MASKED):
            out.masked_lm_positions[i, j] = positions[j] if j < shape.masked else 0
            out.masked_lm_ids[i, j] = truths[j] if j < shape.masked else 0
        out.next_sentence_labels[i] = shape.label


@njit(cache=True, nogil=True)
def put_checksums(out: Raw, starts: Array, crcs: NDArray[np.uint32], count: int) -> None:
    """Write the masked CRC of each record's data into the record's last four bytes."""
    for i in range(count):
        _put_number(out, np.uint64(starts[i + 1] - 4), np.uint64(crcs[i]), 4)


def masked(crc: Crc) -> Crc:
    """Mask a CRC-32C, or an array of them, for TFRecord: rotate right by 15 bits, add a constant."""
    rotated: Any = (crc >> 15) | (crc << 17)
    result: Crc = (rotated + _MASK_DELTA) & 0xFFFFFFFF
    return result
