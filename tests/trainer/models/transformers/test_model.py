"""Tests of training on tiny models of transformers' own classes, against transformers itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config.layer_patterns import parse_patterns
from lora_crucible.data.text.examples import TextExample
from lora_crucible.data.text.rendering import Rendered, prompt_tokens
from lora_crucible.data.text.rows import Turn
from lora_crucible.errors import CrucibleError
from lora_crucible.files.pretrained import pretrained
from lora_crucible.models.examples import CachedExample
from lora_crucible.models.language.inputs import collated
from lora_crucible.models.language.loss import Head
from lora_crucible.models.previews import Sampling
from lora_crucible.models.transformers import loading
from lora_crucible.models.transformers.model import TransformersBaseModel
from random_models import ALL, ROWS, PlainRenderer, cached, example, open_model, save, tokenizer

SPEC = AdapterSpec(rank=4, alpha=8.0, dropout=0.0, target_modules="linear")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind, kind) for kind in ALL}


@contextmanager
def adapted(
    model: TransformersBaseModel, spec: AdapterSpec = SPEC, precision: str = "fp32", *, checkpointing: bool = False
) -> Iterator[Adapters]:
    """Adapters that do something."""
    with model.session(precision), model.attached(spec, checkpointing) as adapters:
        adapters.initialise(7)
        with torch.no_grad():
            for _, part, parameter in adapters.named_parameters():
                if part in ("lora_B", "hada_w2_b", "lokr_w2_b", "lokr_w2"):
                    draw = torch.Generator().manual_seed(parameter.numel())
                    parameter.normal_(0, 0.05, generator=draw)
        yield adapters


def gradients(model: TransformersBaseModel, adapters: Adapters, rows: list[CachedExample], seeds=None) -> list:
    for parameter in adapters.parameters():
        parameter.grad = None
    weights = torch.tensor([row.weight for row in rows])
    values = model.losses(rows, seeds or list(range(len(rows)))).values
    ((values * weights).sum() / weights.sum()).backward()
    return [parameter.grad.clone() for parameter in adapters.parameters()]


def labels_of(rows: list[TextExample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    length = max(len(row.rendered.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    labels, mask = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for index, row in enumerate(rows):
        own = torch.tensor(row.rendered.tokens)
        tokens[index, : len(own)], mask[index, : len(own)] = own, 1
        labels[index, : len(own)] = torch.where(torch.tensor(row.rendered.trained), own, -100)
    return tokens, labels, mask


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_equal_transformers(folders: dict[str, Path], kind: str, checkpointing: bool) -> None:
    model = open_model(folders[kind])
    with adapted(model, checkpointing=checkpointing) as adapters:
        rows = cached(model)
        found = gradients(model, adapters, rows)
        values, weights = model.losses(rows, range(4)).values.detach(), torch.tensor([row.weight for row in rows])
        for parameter in adapters.parameters():
            parameter.grad = None
        tokens, labels, mask = labels_of(ROWS)
        loss = model._model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        assert (values * weights).sum() / weights.sum() == pytest.approx(loss.item(), abs=1e-5)
        for ours, parameter in zip(found, adapters.parameters(), strict=True):
            torch.testing.assert_close(ours, parameter.grad, atol=1e-6, rtol=1e-4)
        assert any(gradient.abs().max() > 1e-4 for gradient in found)


@pytest.mark.parametrize("kind", ALL)
def test_rows_do_not_depend_on_the_batch_or_on_padding(folders: dict[str, Path], kind: str) -> None:
    model = open_model(folders[kind])
    with adapted(model):
        rows = cached(model)
        together = model.losses(rows, range(4)).values
        alone = torch.cat([model.losses([row], [seed]).values for seed, row in enumerate(rows)])
        torch.testing.assert_close(together, alone, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_what_comes_later_does_not_matter(folders: dict[str, Path], kind: str) -> None:
    """Tokens after the last trained one are not even read."""
    model = open_model(folders[kind])
    longer = replace(
        ROWS[0], rendered=Rendered((*ROWS[0].rendered.tokens, 9, 9), (*ROWS[0].rendered.trained, False, False))
    )
    with adapted(model):
        first, second = (model.losses(cached(model, [row]), [0]).values for row in (ROWS[0], longer))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ALL)
def test_a_batch_is_overfitted(folders: dict[str, Path], kind: str) -> None:
    model = open_model(folders[kind])
    spec = replace(SPEC, rank=8, alpha=16.0)
    with model.session("fp32"), model.attached(spec, True) as adapters:
        adapters.initialise(1)
        rows = cached(model, ROWS[:3])
        optimizer = torch.optim.AdamW(adapters.parameters(), lr=2e-2, weight_decay=0)
        for _ in range(150):
            optimizer.zero_grad()
            model.losses(rows, range(3)).values.mean().backward()
            optimizer.step()
        assert model.losses(rows, range(3)).errors.max() < 0.3


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("algorithm", ["lora", "rslora", "dora", "loha", "lokr"])
def test_all_algorithms_train_and_start_without_effect(folders: dict[str, Path], kind: str, algorithm: str) -> None:
    model = open_model(folders[kind])
    with model.session("fp32"):
        rows, batch = cached(model), collated([row.inputs for row in cached(model)], torch.device("cpu"))
        before = model.hidden_states(batch.tokens)
        with model.attached(replace(SPEC, algorithm=algorithm), False) as adapters:
            adapters.initialise(3)
            torch.testing.assert_close(model.hidden_states(batch.tokens), before, atol=1e-5, rtol=1e-5)
            assert any(gradient.abs().max() > 0 for gradient in gradients(model, adapters, rows))
            assert set(adapters.layers()) <= model.layer_shapes().keys()
        assert torch.equal(model.hidden_states(batch.tokens), before)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_finite_and_near(folders: dict[str, Path], kind: str, precision: str) -> None:
    model = open_model(folders[kind])
    with adapted(model):
        exact = model.losses(cached(model), range(4)).values.detach()
    with adapted(model, precision=precision) as adapters:
        rounded = model.losses(cached(model), range(4)).values.detach()
        assert all(gradient.isfinite().all() for gradient in gradients(model, adapters, cached(model)))
    torch.testing.assert_close(rounded, exact, atol=0.15, rtol=0.05)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_depends_on_the_row_alone(folders: dict[str, Path], kind: str, checkpointing: bool) -> None:
    model = open_model(folders[kind])
    same = [example(9, 3), example(9, 2, seed=5), example(9, 4, seed=6)]  # masks have the shape of the padded row
    with adapted(model, replace(SPEC, dropout=0.3), checkpointing=checkpointing) as adapters:
        rows = cached(model, same)
        together, alone = model.losses(rows, [11, 12, 13]).values, model.losses(rows[1:2], [12]).values
        torch.testing.assert_close(together[1:2], alone, atol=2e-6, rtol=1e-6)
        assert not torch.allclose(model.losses(rows[1:2], [99]).values, alone, atol=1e-4)
        found = gradients(model, adapters, rows, [11, 12, 13])
        model.memory.set_checkpointing(not checkpointing)
        for ours, other in zip(found, gradients(model, adapters, rows, [11, 12, 13]), strict=True):
            torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-5)
        with adapters.without_dropout():
            assert torch.equal(model.losses(rows, [1, 2, 3]).values, model.losses(rows, [4, 5, 6]).values)


@pytest.mark.parametrize("kind", ALL)
def test_divergence_from_base(folders: dict[str, Path], kind: str) -> None:
    model = open_model(folders[kind])
    with adapted(model) as adapters:
        rows = cached(model)
        found = model.divergence_from_base(rows)
        for row, value in zip(ROWS, found, strict=True):
            tokens, labels, _ = labels_of([row])
            places = (labels[0, 1:] != -100).nonzero().squeeze(1)
            after = model._model(input_ids=tokens).logits[0, places].log_softmax(1)
            with adapters.without_effect():
                before = model._model(input_ids=tokens).logits[0, places].log_softmax(1)
            assert value == pytest.approx(((before - after) * before.exp()).sum(1).mean().item(), abs=1e-5)
        assert found.min() > 1e-4
        with adapters.without_effect():
            assert model.divergence_from_base(rows).abs().max() < 1e-6


def test_experts_get_no_adapters_and_that_is_told(tmp_path: Path) -> None:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
    model = open_model(save(tmp_path, "Qwen3Moe", **sizes))
    (warning,) = model.warnings()
    experts = 2 * 4 * 3 * 32 * 24
    assert f"hold {experts / model.parameters:.0%} of its parameters and get no adapters" in warning
    with adapted(model) as adapters:
        assert not any("experts" in key for key, _, _ in adapters.named_parameters())


@pytest.mark.parametrize("kind", ALL)
def test_answers(folders: dict[str, Path], kind: str) -> None:
    model = open_model(folders[kind])
    prompts = [(2, 7, 8, 3), (2, 9, 3), (2, 10, 11, 12, 13, 3)]
    with adapted(model):
        together = model.answers(prompts, 12)
        assert together == [model.answers([prompt], 12)[0] for prompt in prompts]
        greedy = model._model.generate(torch.tensor([prompts[0]]), max_new_tokens=12, do_sample=False)[0, 4:].tolist()
        assert list(together[0].tokens) == (greedy[: greedy.index(1)] if 1 in greedy else greedy)
        assert together[0].stopped is (1 in greedy)
        drawn = model.answers(prompts, 12, seed=5)
        assert drawn == [model.answers([prompt], 12, seed=5)[0] for prompt in prompts]
        assert len({answer.tokens for seed in range(5) for answer in model.answers(prompts[:1], 12, seed=seed)}) > 2


def test_samples_are_drawn_at_temperature_1(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    with model.session("fp32"), torch.no_grad():
        expected = model._model(input_ids=torch.tensor([[2, 7, 3]])).logits[0, -1].softmax(0)
        counts = torch.zeros(96)
        for seed in range(400):
            answer = model.answers([(2, 7, 3)], 1, seed=seed)[0]
            counts[answer.tokens[0] if answer.tokens else 1] += 1
    likely = expected > 0.03
    torch.testing.assert_close(counts[likely] / 400, expected[likely], atol=0.06, rtol=0)


def test_an_answer_ends_at_the_stop_token(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    with model.session("fp32"):
        free = model.answers([(2, 7, 3)], 6)[0]
        model.renderer.stop_token = free.tokens[2]
        ended = model.answers([(2, 7, 3)], 6)[0]
    assert ended.stopped
    assert ended.tokens == free.tokens[: free.tokens.index(free.tokens[2])]
    assert ended.text == model.renderer.decode(ended.tokens)


def test_interrupts_are_passed_on(folders: dict[str, Path]) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model = TransformersBaseModel(str(folders["Qwen3"]), check, make_renderer=PlainRenderer)
    with model.session("fp32"), pytest.raises(KeyboardInterrupt):
        model.answers([(2, 7, 3)], 40)
    assert len(calls) == 3


def test_only_layers_of_the_decoder_are_adapted(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    with model.session("fp32"), model.attached(SPEC, False) as adapters:
        assert len(adapters) == 2 * 7
        assert all(key.startswith("lora_te_model_layers_") for key in adapters.layers())
    kinds = replace(SPEC, target_modules="attention"), replace(SPEC, target_modules="attention_and_feed_forward")
    with model.session("fp32"):
        for spec, count in zip(kinds, (2 * 4, 2 * 7), strict=True):
            with model.attached(spec, False) as adapters:
                assert len(adapters) == count


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_head_with_an_adapter(folders: dict[str, Path], checkpointing: bool) -> None:
    model = open_model(folders["Llama"])
    spec = replace(SPEC, patterns=parse_patterns("lm_head, q_proj"), dropout=0.2)
    with adapted(model, spec, checkpointing=checkpointing) as adapters:
        assert "lora_te_lm_head" in adapters.layers()
        rows = cached(model)
        with adapters.without_dropout():
            values, weights = model.losses(rows, range(4)).values, torch.tensor([row.weight for row in rows])
            found = gradients(model, adapters, rows)
            for parameter in adapters.parameters():
                parameter.grad = None
            tokens, labels, mask = labels_of(ROWS)
            loss = model._model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False).loss
            loss.backward()
            assert ((values * weights).sum() / weights.sum()).item() == pytest.approx(loss.item(), abs=1e-5)
            for ours, parameter in zip(found, adapters.parameters(), strict=True):
                torch.testing.assert_close(ours, parameter.grad, atol=1e-6, rtol=1e-4)
            assert model.divergence_from_base(rows).min() > 0
        same = cached(model, [example(9, 3), example(9, 2, seed=5)])
        alone = model.losses(same[1:], [12]).values
        torch.testing.assert_close(model.losses(same, [11, 12]).values[1:], alone, atol=2e-6, rtol=1e-6)


def test_a_head_that_is_the_embedding_is_refused(folders: dict[str, Path]) -> None:
    model = open_model(folders["Qwen3"])
    spec = replace(SPEC, patterns=parse_patterns("lm_head"))
    shared = pytest.raises(CrucibleError, match="shares its weight with the embeddings")
    with model.session("fp32"), shared, model.attached(spec, False):
        pass
    assert "lora_te_lm_head" not in model.layer_shapes()


def test_a_seed_gives_the_same_weights_in_any_session(folders: dict[str, Path]) -> None:
    found = []
    for _ in range(2):
        model = open_model(folders["Mistral"])
        with adapted(model) as adapters:
            found.append(model.losses(cached(model), range(4)).values.detach())
            found.append(torch.cat([parameter.detach().flatten() for parameter in adapters.parameters()]))
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


def test_identity(folders: dict[str, Path], tmp_path: Path) -> None:
    first = open_model(folders["Qwen3"])
    assert first.identity() == open_model(save(tmp_path / "copy")).identity()
    assert first.identity() != open_model(save(tmp_path / "other", seed=2)).identity()
    turned = save(tmp_path / "turned", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert first.identity() != open_model(turned).identity()
    assert open_model(folders["Qwen3"], weights=False).identity() == ""


def test_names_of_layers(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    path = "model.layers.1.mlp.up_proj"
    for name in (
        f"base_model.model.{path}",
        f"text_encoders.transformer.{path}",
        f"text_encoders.qwen3_4b.transformer.{path}",
        "lora_te_model_layers_1_mlp_up_proj",
    ):
        place = model.place_of(name)
        assert place is not None
        assert place.key == "lora_te_model_layers_1_mlp_up_proj"
    assert model.place_of("base_model.model.model.layers.9.mlp.up_proj") is None


def test_facts(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"], weights=False)
    assert model.facts.architecture == "language"
    assert model.facts.prediction_type == ""
    with model_of(folders["Llama"]) as own:
        assert model.facts.parameters == sum(parameter.numel() for parameter in own.parameters())
    assert model.longest == 128
    assert open_model(folders["Llama"], max_seq_length=50).longest == 50
    with pytest.raises(CrucibleError, match=r"max_seq_length is 500.*reads 128 tokens at most"):
        open_model(folders["Llama"], max_seq_length=500)


@contextmanager
def model_of(folder: Path) -> Iterator[Any]:
    model = open_model(folder)
    with model.session("fp32"):
        yield model._model


def test_weights_size_and_restoring(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    assert model.memory.weights_size() == (0, 0)
    with model.session("fp32"):
        forwards = [type(module) for module in model._model.modules()]
        with model.attached(SPEC, True):
            assert model.memory.weights_size() == (4 * model.parameters,) * 2
        assert [type(module) for module in model._model.modules()] == forwards
        assert not any("forward" in module.__dict__ for module in model._model.modules())


def test_an_image_dataset_is_refused(folders: dict[str, Path]) -> None:
    from toy import Numbers

    with pytest.raises(CrucibleError, match=r"numbers is a dataset of examples, but .*learns from texts"):
        open_model(folders["Llama"]).prepare_dataset(Numbers())


def test_a_row_without_trained_tokens_is_named(folders: dict[str, Path]) -> None:
    row = TextExample("chat.jsonl, row 7", Rendered((2, 5, 3), (False,) * 3), 64)
    with pytest.raises(CrucibleError, match=r"None of the 3 tokens of chat\.jsonl, row 7 is trained"):
        cached(open_model(folders["Llama"]), [row])


def test_a_token_that_the_model_does_not_know_is_named(folders: dict[str, Path]) -> None:
    row = TextExample("chat.jsonl, row 7", Rendered((2, 500, 3), (False, True, True)), 64)
    with pytest.raises(CrucibleError, match=r"chat\.jsonl, row 7 has token 500, but .* embeddings for 96"):
        cached(open_model(folders["Llama"]), [row])


def test_previews_are_greedy_answers(folders: dict[str, Path]) -> None:
    model = open_model(folders["Llama"])
    sampling = Sampling(("word1 word2", "word3"), 0, 0, 7, 1, 1.0, "", "", max_new_tokens=5)
    with model.session("fp32"):
        model.previewer.prepare([sampling])
        texts = model.previewer.draw(sampling)
        prompts = [model.renderer.prompt([Turn("user", text)]) for text in sampling.prompts]
        assert texts == tuple(answer.text for answer in model.answers(prompts, 5))
        assert model.previewer.draw(replace(sampling, prompts=())) == ()


def test_a_prompt_without_a_template_is_the_beginning_of_a_text(folders: dict[str, Path]) -> None:
    class Plain(PlainRenderer):
        def prompt(self, turns: Any) -> Any:
            raise CrucibleError("there is no template")

    renderer = Plain(tokenizer())
    assert prompt_tokens(renderer, [Turn("user", "word1 word2")]) == tuple(tokenizer()("word1 word2")["input_ids"])


@pytest.mark.parametrize("kind", ALL)
def test_a_folder_of_peft_is_verified(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    model = open_model(folders[kind])
    own = transformers.AutoModelForCausalLM.from_pretrained(folders[kind])
    peft.get_peft_model(own, peft.LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path)
    layers = len(model.layer_shapes()) - ("lora_te_lm_head" in model.layer_shapes())
    model.verify(tmp_path, layers)
    model.verify(tmp_path / "adapter_model.safetensors", layers)
    with pytest.raises(CrucibleError, match=rf"saved with {layers} of its {layers + 1} layers"):
        model.verify(tmp_path, layers + 1)
    other = open_model(save(tmp_path / "smaller", kind, num_hidden_layers=1, layer_types=None))
    with pytest.raises(CrucibleError, match="are not those of the model: base_model"):
        other.verify(tmp_path, layers)


def test_a_damaged_adapter_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(b"abc")
    with pytest.raises(CrucibleError, match="that was just written cannot be read"):
        open_model(folders["Llama"]).verify(tmp_path / "adapter.safetensors", 1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_that_is_spread_trains_alike(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """A block that accelerate keeps elsewhere until it is needed, here on the disk."""
    whole = open_model(folders["Llama"])
    with adapted(whole) as adapters:
        expected = gradients(whole, adapters, cached(whole))
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    settings = {"device_map": {**places, "model.rotary_emb": "cpu", "lm_head": "cpu"}, "offload_folder": str(tmp_path)}
    monkeypatch.setattr(loading, "pretrained", lambda *given, **values: {**pretrained(*given, **values), **settings})
    spread = open_model(folders["Llama"], weights=True)
    with adapted(spread, checkpointing=checkpointing) as adapters:
        assert spread._model.model.layers[1].mlp.up_proj.weight.device.type == "meta"
        for ours, other in zip(gradients(spread, adapters, cached(spread)), expected, strict=True):
            torch.testing.assert_close(ours, other, atol=1e-7, rtol=1e-5)
    dora = pytest.raises(CrucibleError, match="algorithm is dora, which needs the weights of all trained layers")
    with dora, adapted(spread, replace(SPEC, algorithm="dora")):
        pass


def test_a_model_that_is_too_big_for_the_card_is_said(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(folders["Llama"])
    assert model.warnings() == ()
    model.device = torch.device("cuda")
    monkeypatch.setattr(loading, "available_memory", lambda device: 2 * model.parameters)
    (warning,) = model.warnings()
    assert "too big for one device, so it is spread over all graphics cards and main memory" in warning
    monkeypatch.setattr(loading, "available_memory", lambda device: 3 * model.parameters)
    assert model.warnings() == ()


@pytest.mark.parametrize("kind", ["Granite", "Cohere"])
def test_models_that_scale_their_logits(tmp_path: Path, kind: str) -> None:
    scales = {"Granite": {"logits_scaling": 5.0}, "Cohere": {"logit_scale": 0.2}}
    model = open_model(save(tmp_path / kind, kind, **scales[kind]))
    with model.session("fp32"):
        rows = cached(model)
        found, weights = model.losses(rows, range(4)).values, torch.tensor([row.weight for row in rows])
        tokens, labels, mask = labels_of(ROWS)
        loss = model._model(input_ids=tokens, attention_mask=mask, labels=labels).loss.item()
    assert ((found * weights).sum() / weights.sum()).item() == pytest.approx(loss, abs=1e-5)


def test_a_model_whose_predictions_are_computed_in_an_unknown_way(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TransformersBaseModel.head

    @contextmanager
    def other_head(self: TransformersBaseModel) -> Iterator[Head]:
        with known(self) as head:
            yield replace(head, scale=0.8)

    monkeypatch.setattr(TransformersBaseModel, "head", other_head)
    unknown = pytest.raises(CrucibleError, match=r"in a way that is not known here: they differ by 20%")
    with unknown, open_model(folders["Llama"]).session("fp32"):
        pass


def test_nan_of_the_model_itself_is_said(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "Llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(CrucibleError, match="NaN or infinite values"), open_model(folder).session("fp32"):
        pass
