"""The layers of the other image transformers."""

SD3 = """
joint_blocks.# = transformer_blocks.#
    x_block.attn.qkv 3:1 = attn.to_q attn.to_k attn.to_v
    context_block.attn.qkv 3:1 = attn.add_q_proj attn.add_k_proj attn.add_v_proj
    x_block.attn2.qkv 3:1 = attn2.to_q attn2.to_k attn2.to_v
    x_block.attn.proj 1:1 = attn.to_out.0
    context_block.attn.proj 1:1 = attn.to_add_out
    x_block.attn2.proj 1:1 = attn2.to_out.0
    x_block.mlp.fc1 4:1 = ff.net.0.proj
    x_block.mlp.fc2 1:4 = ff.net.2
    context_block.mlp.fc1 4:1 = ff_context.net.0.proj
    context_block.mlp.fc2 1:4 = ff_context.net.2
    x_block.adaLN_modulation.1 = norm1.linear
    context_block.adaLN_modulation.1 = norm1_context.linear~last
context_embedder
x_embedder.proj = pos_embed.proj
t_embedder.mlp.0 = time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2 1:1 = time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0 = time_text_embed.text_embedder.linear_1
y_embedder.mlp.2 1:1 = time_text_embed.text_embedder.linear_2
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 2:1 = norm_out.linear~
"""

_LUMINA2_BLOCK = """
    attention.qkv 5/3:1 = attn.to_q:3 attn.to_k attn.to_v
    attention.out 1:1 = attn.to_out.0
    feed_forward.w1 ff:1 = feed_forward.linear_1
    feed_forward.w2 1:ff = feed_forward.linear_2
    feed_forward.w3 ff:1 = feed_forward.linear_3
"""
_LUMINA2_MODULATION = """
    adaLN_modulation.1 4:time = norm1.linear
"""
LUMINA2 = f"""
layers.#
{_LUMINA2_BLOCK}
{_LUMINA2_MODULATION}
noise_refiner.#
{_LUMINA2_BLOCK}
{_LUMINA2_MODULATION}
context_refiner.#
{_LUMINA2_BLOCK}
x_embedder
t_embedder.mlp.0 = time_caption_embed.timestep_embedder.linear_1
t_embedder.mlp.2 time:time = time_caption_embed.timestep_embedder.linear_2
cap_embedder.1 = time_caption_embed.caption_embedder.1
final_layer.adaLN_modulation.1 1:time = norm_out.linear_1
final_layer.linear = norm_out.linear_2
"""

_Z_IMAGE_BLOCK = """
    attention.qkv 3:1 = attention.to_q attention.to_k attention.to_v
    attention.out 1:1 = attention.to_out.0
    feed_forward.w1 ff:1
    feed_forward.w2 1:ff
    feed_forward.w3 ff:1
"""
_Z_IMAGE_MODULATION = """
    adaLN_modulation.0 4:time
"""
Z_IMAGE = f"""
layers.#
{_Z_IMAGE_BLOCK}
{_Z_IMAGE_MODULATION}
noise_refiner.#
{_Z_IMAGE_BLOCK}
{_Z_IMAGE_MODULATION}
context_refiner.#
{_Z_IMAGE_BLOCK}
x_embedder = all_x_embedder.2-1
final_layer.linear = all_final_layer.2-1.linear
final_layer.adaLN_modulation.1 1:time = all_final_layer.2-1.adaLN_modulation.1
cap_embedder.1
t_embedder.mlp.0
t_embedder.mlp.2
"""

QWEN_IMAGE = """
transformer_blocks.#
    attn.to_q 1:1
    attn.to_k 1:1
    attn.to_v 1:1
    attn.add_q_proj 1:1
    attn.add_k_proj 1:1
    attn.add_v_proj 1:1
    attn.to_out.0 1:1
    attn.to_add_out 1:1
    img_mlp.net.0.proj 4:1
    img_mlp.net.2 1:4
    txt_mlp.net.0.proj 4:1
    txt_mlp.net.2 1:4
    img_mod.1 6:1
    txt_mod.1 6:1
img_in
txt_in
time_text_embed.timestep_embedder.linear_1
time_text_embed.timestep_embedder.linear_2 1:1
norm_out.linear 2:1
proj_out
"""

AURAFLOW = """
double_layers.# = joint_transformer_blocks.#
    attn.w2q 1:1 = attn.to_q
    attn.w2k 1:1 = attn.to_k
    attn.w2v 1:1 = attn.to_v
    attn.w2o 1:1 = attn.to_out.0
    attn.w1q 1:1 = attn.add_q_proj
    attn.w1k 1:1 = attn.add_k_proj
    attn.w1v 1:1 = attn.add_v_proj
    attn.w1o 1:1 = attn.to_add_out
    mlpX.c_fc1 ff:1 = ff.linear_1
    mlpX.c_fc2 ff:1 = ff.linear_2
    mlpX.c_proj 1:ff = ff.out_projection
    mlpC.c_fc1 ff:1 = ff_context.linear_1
    mlpC.c_fc2 ff:1 = ff_context.linear_2
    mlpC.c_proj 1:ff = ff_context.out_projection
    modX.1 6:1 = norm1.linear
    modC.1 6:1 = norm1_context.linear
single_layers.# = single_transformer_blocks.#
    attn.w1q 1:1 = attn.to_q
    attn.w1k 1:1 = attn.to_k
    attn.w1v 1:1 = attn.to_v
    attn.w1o 1:1 = attn.to_out.0
    mlp.c_fc1 ff:1 = ff.linear_1
    mlp.c_fc2 ff:1 = ff.linear_2
    mlp.c_proj 1:ff = ff.out_projection
    modCX.1 6:1 = norm1.linear
init_x_linear = pos_embed.proj
cond_seq_linear = context_embedder
t_embedder.mlp.0 = time_step_proj.linear_1
t_embedder.mlp.2 1:1 = time_step_proj.linear_2
modF.1 2:1 = norm_out.linear~
final_linear = proj_out
"""

PIXART_SIGMA = """
blocks.# = transformer_blocks.#
    attn.qkv 3:1 = attn1.to_q attn1.to_k attn1.to_v
    attn.proj 1:1 = attn1.to_out.0
    cross_attn.q_linear 1:1 = attn2.to_q
    cross_attn.kv_linear 2:1 = attn2.to_k attn2.to_v
    cross_attn.proj 1:1 = attn2.to_out.0
    mlp.fc1 4:1 = ff.net.0.proj
    mlp.fc2 1:4 = ff.net.2
x_embedder.proj = pos_embed.proj
t_embedder.mlp.0 = adaln_single.emb.timestep_embedder.linear_1
t_embedder.mlp.2 1:1 = adaln_single.emb.timestep_embedder.linear_2
t_block.1 6:1 = adaln_single.linear
y_embedder.y_proj.fc1 = caption_projection.linear_1
y_embedder.y_proj.fc2 1:1 = caption_projection.linear_2
final_layer.linear = proj_out
"""
PIXART_ALPHA = f"""
{PIXART_SIGMA}
csize_embedder.mlp.0 = adaln_single.emb.resolution_embedder.linear_1
csize_embedder.mlp.2 = adaln_single.emb.resolution_embedder.linear_2
ar_embedder.mlp.0 = adaln_single.emb.aspect_ratio_embedder.linear_1
ar_embedder.mlp.2 = adaln_single.emb.aspect_ratio_embedder.linear_2
"""

HUNYUAN_DIT = """
blocks.#
    attn1.Wqkv 3:1 = attn1.to_q attn1.to_k attn1.to_v
    attn1.out_proj 1:1 = attn1.to_out.0
    attn2.q_proj 1:1 = attn2.to_q
    attn2.kv_proj 2:text = attn2.to_k attn2.to_v
    attn2.out_proj 1:1 = attn2.to_out.0
    mlp.fc1 ff:1 = ff.net.0.proj
    mlp.fc2 1:ff = ff.net.2
    default_modulation.1 1:1 = norm1.linear
    skip_linear 1:2
x_embedder.proj = pos_embed.proj
mlp_t5.0 = text_embedder.linear_1
mlp_t5.2 = text_embedder.linear_2
pooler.q_proj = time_extra_emb.pooler.q_proj
pooler.k_proj = time_extra_emb.pooler.k_proj
pooler.v_proj = time_extra_emb.pooler.v_proj
pooler.c_proj = time_extra_emb.pooler.c_proj
t_embedder.mlp.0 = time_extra_emb.timestep_embedder.linear_1
t_embedder.mlp.2 1:1 = time_extra_emb.timestep_embedder.linear_2
extra_embedder.0 = time_extra_emb.extra_embedder.linear_1
extra_embedder.2 = time_extra_emb.extra_embedder.linear_2
final_layer.adaLN_modulation.1 2:1 = norm_out.linear~
final_layer.linear = proj_out
"""

_HIDREAM_IMAGE = """
    attn1.to_q 1:1
    attn1.to_k 1:1
    attn1.to_v 1:1
    attn1.to_out 1:1
    ff_i.shared_experts.w1 shared:1
    ff_i.shared_experts.w2 1:shared
    ff_i.shared_experts.w3 shared:1
    ff_i.experts.#.w1 ff:1
    ff_i.experts.#.w2 1:ff
    ff_i.experts.#.w3 ff:1
    ff_i.gate
"""
HIDREAM = f"""
double_stream_blocks.#.block
{_HIDREAM_IMAGE}
    attn1.to_q_t 1:1
    attn1.to_k_t 1:1
    attn1.to_v_t 1:1
    attn1.to_out_t 1:1
    ff_t.w1 ff:1
    ff_t.w2 1:ff
    ff_t.w3 ff:1
    adaLN_modulation.1 12:1
single_stream_blocks.#.block
{_HIDREAM_IMAGE}
    adaLN_modulation.1 6:1
x_embedder.proj
t_embedder.timestep_embedder.linear_1
t_embedder.timestep_embedder.linear_2 1:1
p_embedder.pooled_embedder.linear_1
p_embedder.pooled_embedder.linear_2 1:1
caption_projection.#.linear
final_layer.linear
final_layer.adaLN_modulation.1 2:1
"""
