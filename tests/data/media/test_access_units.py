import pytest

from omnistream.data.media.bits import BitReader, nal_units, sei_messages
from omnistream.data.media.codecs import unit_reader
from omnistream.data.media.parameter_sets import ParameterSets, avcc_sets, hvcc_sets


def test_bits_and_exp_golomb_codes():
    bits = BitReader(bytes([0b10100110, 0b01000010, 0b10000000]))
    assert [bits.unsigned() for _ in range(4)] == [0, 1, 2, 3]  # 1 010 011 00100
    assert bits.take(3) == 0b001
    assert bits.signed() == 1  # 010
    assert bits.take(6) == 0
    with pytest.raises(IndexError, match="cut off"):
        bits.take(1)


@pytest.mark.parametrize(("code", "value"), [("1", 0), ("010", 1), ("011", -1), ("00100", 2), ("00101", -2)])
def test_signed_codes(code, value):
    assert BitReader(int(code.ljust(8, "1"), 2).to_bytes(1, "big")).signed() == value


def test_emulation_prevention_bytes_are_removed():
    assert BitReader(b"\0\0\3\1").take(24) == 1


def test_units():
    assert list(nal_units(b"\0\0\0\1ab\0\0\1c\0\0\1", 0)) == [b"ab", b"c"]
    assert list(nal_units(b"\0\2ab\0\0\0\1c", 2)) == [b"ab", b"c"]
    assert list(sei_messages(b"\5\2ab\x06\1x\x80")) == [(5, b"ab"), (6, b"x")]
    assert list(sei_messages(b"\xff\1\1x\x80")) == [(256, b"x")]


def test_configuration_records():
    avcc = bytes([1, 77, 0, 30, 0xFF, 0xE1, 0, 2]) + b"ss" + bytes([1, 0, 3]) + b"ppp"
    assert avcc_sets(avcc) == (4, [b"ss", b"ppp"])
    assert avcc_sets(b"\0\0\0\1g...") == (0, [])
    hvcc = bytes(21) + bytes([0xF3, 2, 32, 0, 1, 0, 2]) + b"vv" + bytes([34, 0, 1, 0, 1]) + b"p"
    assert hvcc_sets(b"\1" + hvcc[1:]) == (4, [b"vv", b"p"])
    assert hvcc_sets(b"\0\0\0\1" + bytes(30)) == (0, [])


def test_a_start_point_needs_the_sets_that_changed():
    sets = ParameterSets()
    sets.add(7, 0, b"a")
    sets.add(8, 0, b"p")
    sets.end_of_configuration()
    sets.next_packet()
    sets.add(7, 0, b"a\0")  # repeated, with the zero of the next start code
    assert sets.known_at_start()
    sets.next_packet()
    assert sets.known_at_start()
    sets.next_packet()
    sets.add(7, 0, b"b")
    assert not sets.known_at_start()
    sets.next_packet()
    sets.add(7, 0, b"b")
    sets.add(8, 0, b"p")
    assert sets.known_at_start()
    sets.next_packet()
    assert not sets.known_at_start()


def test_sets_of_the_first_packet_are_known_later():
    sets = ParameterSets()
    sets.end_of_configuration()
    sets.next_packet()
    sets.add(7, 0, b"a")
    sets.next_packet()
    assert sets.known_at_start()
    sets.next_packet()
    sets.add(7, 1, b"b")  # a new one in the middle
    sets.next_packet()
    assert not sets.known_at_start()


@pytest.mark.parametrize(
    ("codec", "data", "starts", "shows"),
    [
        ("vp8", [0b10000], True, 1),
        ("vp8", [0b10001], False, 1),
        ("vp8", [0b00001], False, 0),  # hidden
        ("vp9", [0b10000010, 0], True, 1),
        ("vp9", [0b10000110, 0], False, 1),
        ("vp9", [0b10000100, 0], False, 0),  # hidden
        ("vp9", [0b10001000, 0], False, 1),  # shows an earlier frame
        ("vp9", [0b10000000, 0, 0b10000110, 0, 0xC1, 2, 2, 0xC1], True, 1),  # a hidden key frame and one that is shown
        ("av1", [0x0A, 1, 0, 0x32, 1, 0b00010000], True, 1),
        ("av1", [0x0A, 1, 0, 0x32, 1, 0b00000000], False, 1),  # a key frame to be shown later
        ("av1", [0x32, 1, 0b00010000], False, 1),  # without a sequence header
        ("av1", [0x0A, 1, 0, 0x32, 1, 0b00110000], False, 1),
        ("mpeg4", [0, 0, 1, 0xB6, 0x00, *range(9, 20)], True, 1),
        ("mpeg4", [0, 0, 1, 0xB6, 0x40, *range(9, 20)], False, 1),
        ("mpeg2video", [0, 0, 1, 0xB3, 9, 0, 0, 1, 0, 9, 1 << 3, 9, 0, 0, 1, 0xB5, 0x8F, 9, 3, 9], True, 1),
        ("mpeg2video", [0, 0, 1, 0, 9, 1 << 3, 9, 0, 0, 1, 0xB5, 0x8F, 9, 3, 9], False, 1),  # no sequence header
        ("mpeg2video", [0, 0, 1, 0xB3, 9, 0, 0, 1, 0, 9, 2 << 3, 9], False, 1),
        ("mjpeg", [1], True, 1),
        ("gif", [1], False, 1),
        ("wmv2", [1], True, 1),
    ],
)
def test_packets_of_other_codecs(codec, data, starts, shows):
    unit = unit_reader(codec, b"")(bytes(data), True)
    assert (unit.starts, unit.shows) == (starts, shows)


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("mpeg4", [0, 0, 1, 0xB6, 0x40, 9, 9, 9, 0, 0, 1, 0xB6, 0x80, 9, 9, 9]),  # packed
        ("mpeg4", [0, 0, 1, 0xB6, 0x40]),  # a placeholder
        ("mpeg2video", [0, 0, 1, 0, 9, 1 << 3, 9, 0, 0, 1, 0xB5, 0x8F, 9, 1, 9]),  # a field alone
        ("vp9", [0, 0]),
    ],
)
def test_packets_that_have_to_be_decoded(codec, data):
    with pytest.raises(IndexError):
        unit_reader(codec, b"")(bytes(data), True)


def test_unknown_codecs_have_no_reader():
    assert unit_reader("wmv3", b"") is None
