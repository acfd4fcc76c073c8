"""NF4 with double quantisation in figures: its blocks, and the bytes of a weight.

As in QLoRA (Dettmers et al. 2023, section 3): a weight takes 4 bits, `BLOCK_VALUES` of them share a
scale of 8 bits, and `BLOCK_SCALES` scales share a float32.
"""

BLOCK_VALUES = 64
BLOCK_SCALES = 256
NF4_BYTES = 0.5 + 1 / BLOCK_VALUES + 4 / (BLOCK_VALUES * BLOCK_SCALES)  # of one weight
