"""Blocks tile the channels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genossm_kernels._cpu.blocks import cut


@given(
    groups=st.integers(1, 6),
    blocks=st.integers(1, 6),
    factor=st.integers(1, 40),
    lanes=st.sampled_from([8, 16]),
    vectors=st.integers(1, 4),
    data=st.data(),
)
def test_every_channel_is_in_one_block_of_its_group_and_direction(
    groups: int, blocks: int, factor: int, lanes: int, vectors: int, data: st.DataObject
) -> None:
    channels = groups * blocks * factor
    reverse = tuple(data.draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks)))
    found = cut(channels, groups, reverse, lanes, vectors)
    rows = found.table.tolist()
    assert len(rows) == found.number
    following, lane, numbers = 0, 0, [0] * groups
    for first, count, group, direction, first_lane, number in rows:
        assert first == following
        assert 0 < count <= lanes * vectors
        for channel in (first, first + count - 1):
            assert group == channel // (channels // groups)
            assert bool(direction) == reverse[channel // (channels // blocks)]
        assert first_lane == lane
        assert number == numbers[group]
        following += count
        lane += -(-count // lanes) * lanes
        numbers[group] += 1
    assert following == channels
    assert lane == found.lanes
    assert found.slots == max(numbers)
    assert found.uniform == (min(numbers) == max(numbers))
