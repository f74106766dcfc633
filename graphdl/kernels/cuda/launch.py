"""One kernel run on the device, and how its threads are counted.

How work is cut depends on sizes alone, never on the device, so that results are bitwise the same on
all of them.
"""

from __future__ import annotations

from graphdl.kernels.program import Launch

#: Threads of a warp, and of a block where nothing else is said.
WARP, BLOCK = 32, 256
#: Blocks of a launch whose threads go on to the elements that follow: enough for every processor of
#: the largest GPU to hold eight, several times over.
MOST_BLOCKS = 1 << 14
#: Bytes that addresses are multiples of, in the arena and of arrays: what libraries ask for.
ALIGNMENT = 256
#: Bytes of one access of a thread.
ACCESS = 16
#: How many neighbours a thread may take at once, each kind of vector that kernels know.
WIDTHS = (2, 4, 8)


class DeviceLaunch(Launch, frozen=True, eq=False):
    """A launch whose words are the kernel's arguments and whose iterations are its blocks.

    threads: of a block. shared: bytes of memory that a block's threads share.
    """

    threads: int = BLOCK
    shared: int = 0


def blocks_for(threads: int, per_block: int = BLOCK, most: int = MOST_BLOCKS) -> int:
    """How many blocks so many threads are."""
    return max(1, min(-(-threads // per_block), most))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less than a number."""
    return 1 << max(number - 1, 0).bit_length()
