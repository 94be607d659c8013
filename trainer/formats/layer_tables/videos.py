"""The layers of video transformers, and of image models of the same make."""

WAN = """
blocks.#
    self_attn.q 1:1 = attn1.to_q
    self_attn.k 1:1 = attn1.to_k
    self_attn.v 1:1 = attn1.to_v
    self_attn.o 1:1 = attn1.to_out.0
    cross_attn.q 1:1 = attn2.to_q
    cross_attn.k 1:1 = attn2.to_k
    cross_attn.v 1:1 = attn2.to_v
    cross_attn.o 1:1 = attn2.to_out.0
    cross_attn.k_img 1:1 = attn2.add_k_proj
    cross_attn.v_img 1:1 = attn2.add_v_proj
    ffn.0 ff:1 = ffn.net.0.proj
    ffn.2 1:ff = ffn.net.2
patch_embedding
text_embedding.0 = condition_embedder.text_embedder.linear_1
text_embedding.2 1:1 = condition_embedder.text_embedder.linear_2
time_embedding.0 = condition_embedder.time_embedder.linear_1
time_embedding.2 1:1 = condition_embedder.time_embedder.linear_2
time_projection.1 6:1 = condition_embedder.time_proj
img_emb.proj.1 = condition_embedder.image_embedder.ff.net.0.proj
img_emb.proj.3 = condition_embedder.image_embedder.ff.net.2
head.head = proj_out
"""

HUNYUAN_VIDEO = """
double_blocks.# = transformer_blocks.#
    img_attn.qkv 3:1 = attn.to_q attn.to_k attn.to_v | img_attn_qkv
    txt_attn.qkv 3:1 = attn.add_q_proj attn.add_k_proj attn.add_v_proj | txt_attn_qkv
    img_attn.proj 1:1 = attn.to_out.0 | img_attn_proj
    txt_attn.proj 1:1 = attn.to_add_out | txt_attn_proj
    img_mlp.0 4:1 = ff.net.0.proj | img_mlp.fc1
    img_mlp.2 1:4 = ff.net.2 | img_mlp.fc2
    txt_mlp.0 4:1 = ff_context.net.0.proj | txt_mlp.fc1
    txt_mlp.2 1:4 = ff_context.net.2 | txt_mlp.fc2
    img_mod.lin 6:1 = norm1.linear | img_mod.linear
    txt_mod.lin 6:1 = norm1_context.linear | txt_mod.linear
single_blocks.# = single_transformer_blocks.#
    linear1 7:1 = attn.to_q attn.to_k attn.to_v proj_mlp:4
    linear2 1:5 = proj_out
    modulation.lin 3:1 = norm.linear | modulation.linear
txt_in.individual_token_refiner.blocks.# = context_embedder.token_refiner.refiner_blocks.#
    self_attn.qkv 3:1 = attn.to_q attn.to_k attn.to_v | self_attn_qkv
    self_attn.proj 1:1 = attn.to_out.0 | self_attn_proj
    mlp.0 4:1 = ff.net.0.proj | mlp.fc1
    mlp.2 1:4 = ff.net.2 | mlp.fc2
    adaLN_modulation.1 2:1 = norm_out.linear
txt_in.input_embedder = context_embedder.proj_in
txt_in.t_embedder.in_layer = context_embedder.time_text_embed.timestep_embedder.linear_1 | txt_in.t_embedder.mlp.0
txt_in.t_embedder.out_layer 1:1 = context_embedder.time_text_embed.timestep_embedder.linear_2 | txt_in.t_embedder.mlp.2
txt_in.c_embedder.in_layer = context_embedder.time_text_embed.text_embedder.linear_1 | txt_in.c_embedder.linear_1
txt_in.c_embedder.out_layer 1:1 = context_embedder.time_text_embed.text_embedder.linear_2 | txt_in.c_embedder.linear_2
img_in.proj = x_embedder.proj
time_in.in_layer = time_text_embed.timestep_embedder.linear_1 | time_in.mlp.0
time_in.out_layer 1:1 = time_text_embed.timestep_embedder.linear_2 | time_in.mlp.2
vector_in.in_layer = time_text_embed.text_embedder.linear_1
vector_in.out_layer 1:1 = time_text_embed.text_embedder.linear_2
guidance_in.in_layer = time_text_embed.guidance_embedder.linear_1 | guidance_in.mlp.0
guidance_in.out_layer 1:1 = time_text_embed.guidance_embedder.linear_2 | guidance_in.mlp.2
final_layer.adaLN_modulation.1 2:1 = norm_out.linear~
final_layer.linear = proj_out
"""

COSMOS_PREDICT2 = """
blocks.# = transformer_blocks.#
    self_attn.q_proj 1:1 = attn1.to_q
    self_attn.k_proj 1:1 = attn1.to_k
    self_attn.v_proj 1:1 = attn1.to_v
    self_attn.output_proj 1:1 = attn1.to_out.0
    cross_attn.q_proj 1:1 = attn2.to_q
    cross_attn.k_proj 1:text = attn2.to_k
    cross_attn.v_proj 1:text = attn2.to_v
    cross_attn.output_proj 1:1 = attn2.to_out.0
    mlp.layer1 4:1 = ff.net.0.proj
    mlp.layer2 1:4 = ff.net.2
    adaln_modulation_self_attn.1 adaln:1 = norm1.linear_1
    adaln_modulation_self_attn.2 3:adaln = norm1.linear_2
    adaln_modulation_cross_attn.1 adaln:1 = norm2.linear_1
    adaln_modulation_cross_attn.2 3:adaln = norm2.linear_2
    adaln_modulation_mlp.1 adaln:1 = norm3.linear_1
    adaln_modulation_mlp.2 3:adaln = norm3.linear_2
x_embedder.proj.1 = patch_embed.proj
t_embedder.1.linear_1 1:1 = time_embed.t_embedder.linear_1
t_embedder.1.linear_2 3:1 = time_embed.t_embedder.linear_2
final_layer.adaln_modulation.1 adaln:1 = norm_out.linear_1
final_layer.adaln_modulation.2 2:adaln = norm_out.linear_2
final_layer.linear = proj_out
"""

ANIMA = f"""
{COSMOS_PREDICT2}
llm_adapter.blocks.# = text_conditioner.blocks.#
    self_attn.q_proj text:text
    self_attn.k_proj text:text
    self_attn.v_proj text:text
    self_attn.o_proj text:text
    cross_attn.q_proj text:text
    cross_attn.k_proj text:text
    cross_attn.v_proj text:text
    cross_attn.o_proj text:text
    mlp.0
    mlp.2
llm_adapter.embed = text_conditioner.embed
llm_adapter.out_proj text:text = text_conditioner.out_proj
"""

LTX_VIDEO = """
transformer_blocks.#
    attn1.to_q 1:1
    attn1.to_k 1:1
    attn1.to_v 1:1
    attn1.to_out.0 1:1
    attn2.to_q 1:1
    attn2.to_k 1:1
    attn2.to_v 1:1
    attn2.to_out.0 1:1
    ff.net.0.proj 4:1
    ff.net.2 1:4
patchify_proj = proj_in
adaln_single.emb.timestep_embedder.linear_1 = time_embed.emb.timestep_embedder.linear_1
adaln_single.emb.timestep_embedder.linear_2 1:1 = time_embed.emb.timestep_embedder.linear_2
adaln_single.linear 6:1 = time_embed.linear
caption_projection.linear_1
caption_projection.linear_2 1:1
proj_out
"""
