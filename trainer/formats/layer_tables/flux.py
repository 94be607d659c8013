"""The layers of Black Forest Labs' models and those derived from them."""

_AROUND = """
img_in = x_embedder
txt_in = context_embedder
final_layer.linear = proj_out
"""

_ATTENTION = """
    img_attn.qkv 3:1 = attn.to_q attn.to_k attn.to_v
    txt_attn.qkv 3:1 = attn.add_q_proj attn.add_k_proj attn.add_v_proj
    img_attn.proj 1:1 = attn.to_out.0
    txt_attn.proj 1:1 = attn.to_add_out
"""

_BLOCKS = f"""
double_blocks.# = transformer_blocks.#
{_ATTENTION}
    img_mlp.0 4:1 = ff.net.0.proj
    img_mlp.2 1:4 = ff.net.2
    txt_mlp.0 4:1 = ff_context.net.0.proj
    txt_mlp.2 1:4 = ff_context.net.2
single_blocks.# = single_transformer_blocks.#
    linear1 7:1 = attn.to_q attn.to_k attn.to_v proj_mlp:4
    linear2 1:5 = proj_out
"""

FLUX1 = f"""
{_AROUND}
{_BLOCKS}
double_blocks.# = transformer_blocks.#
    img_mod.lin 6:1 = norm1.linear
    txt_mod.lin 6:1 = norm1_context.linear
single_blocks.# = single_transformer_blocks.#
    modulation.lin 3:1 = norm.linear
final_layer.adaLN_modulation.1 2:1 = norm_out.linear~
time_in.in_layer = time_text_embed.timestep_embedder.linear_1
time_in.out_layer 1:1 = time_text_embed.timestep_embedder.linear_2
vector_in.in_layer = time_text_embed.text_embedder.linear_1
vector_in.out_layer 1:1 = time_text_embed.text_embedder.linear_2
guidance_in.in_layer = time_text_embed.guidance_embedder.linear_1
guidance_in.out_layer 1:1 = time_text_embed.guidance_embedder.linear_2
"""

CHROMA = f"""
{_AROUND}
{_BLOCKS}
distilled_guidance_layer.in_proj
distilled_guidance_layer.out_proj
distilled_guidance_layer.layers.#
    in_layer = linear_1
    out_layer = linear_2
"""

FLUX2 = f"""
{_AROUND}
double_blocks.# = transformer_blocks.#
{_ATTENTION}
    img_mlp.0 6:1 = ff.linear_in
    img_mlp.2 1:3 = ff.linear_out
    txt_mlp.0 6:1 = ff_context.linear_in
    txt_mlp.2 1:3 = ff_context.linear_out
single_blocks.# = single_transformer_blocks.#
    linear1 9:1 = attn.to_qkv_mlp_proj
    linear2 1:4 = attn.to_out
double_stream_modulation_img.lin 6:1 = double_stream_modulation_img.linear
double_stream_modulation_txt.lin 6:1 = double_stream_modulation_txt.linear
single_stream_modulation.lin 3:1 = single_stream_modulation.linear
final_layer.adaLN_modulation.1 2:1 = norm_out.linear~
time_in.in_layer = time_guidance_embed.timestep_embedder.linear_1
time_in.out_layer 1:1 = time_guidance_embed.timestep_embedder.linear_2
guidance_in.in_layer = time_guidance_embed.guidance_embedder.linear_1
guidance_in.out_layer 1:1 = time_guidance_embed.guidance_embedder.linear_2
"""
