"""The layers of each architecture: ComfyUI's names, diffusers' names, and sizes.

A table has one layer or one list of blocks per line; "#" stands for a block's number:

    double_blocks.# = transformer_blocks.#                      a list of blocks, and its name in diffusers
        img_attn.qkv 3:1 = attn.to_q attn.to_k attn.to_v        a layer in each block, and its parts in diffusers

Names that are the same in diffusers are left out there. The numbers are the layer's outputs and inputs in units of the
model's width, or a word that `model_sizes` gives a value to; layers whose size differs between models have none.

After a part's name, ":4" means that it has four times as many outputs as the others, "~" that diffusers stores its
halves in the opposite order, and "~last" that it does so in the last block only. After "|" stands the original code's
name where that is neither ComfyUI's nor diffusers'.
"""
