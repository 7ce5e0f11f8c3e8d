"""A patched model inside the tools people use: pipeline, streamers, Trainer, checkpoints, copies."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import TextIteratorStreamer, Trainer, TrainingArguments, pipeline
from transformers.generation.streamers import BaseStreamer

from tests.fixed import Fixed, FixedAtLayer
from tests.tiny.models import FAMILIES, dropped_from
from tests.tiny.processors import build_processor, save_pretrained
from tests.tiny.reference import eager, masked_columns
from tests.tiny.test_processors import chat, encode, image
from tokenprune import TokenPruneError, patch_model
from tokenprune.hooks.engine import is_pruned

GREEDY = {"max_new_tokens": 4, "do_sample": False}


def test_pipeline_prunes_and_recovers(tmp_path):
    save_pretrained("llava", tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path))
    options = {"return_full_text": False, **GREEDY}
    chats = [chat(image()), chat(image(seed=1), text="how many circles are there?")]
    plain = [pipe(text=c, **options) for c in chats]
    with patch_model(pipe.model, "flashvlm", pipe.processor, keep=0.2) as handle:
        pruned = [pipe(text=c, **options) for c in chats]
        assert (handle.report.before, handle.report.after) == (25, 5)
        assert pipe(text=chats, batch_size=2, **options) == pruned
        assert len(handle.report.images) == 2
    assert [p[0]["generated_text"] for p in pruned] != [p[0]["generated_text"] for p in plain]
    assert [pipe(text=c, **options) for c in chats] == plain


class _Pushed(BaseStreamer):
    """What a streamer is told, as token ids."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_streamers_see_the_tokens_that_generate_returns():
    model, processor = FAMILIES["llava"].build(), build_processor("llava")
    inputs = encode(processor, [chat(image())])
    text = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=10)
    pushed = _Pushed()
    with patch_model(model, "random", keep=5):
        wanted = model.generate(**inputs, **GREEDY)
        model.generate(**inputs, **GREEDY, streamer=text)
        model.generate(**inputs, **GREEDY, streamer=pushed)
    assert pushed.tokens == wanted[0].tolist() and pushed.ended
    assert "".join(text) == processor.tokenizer.decode(wanted[0, inputs["input_ids"].shape[1] :])


# -- training ----------------------------------------------------------------------------------------------------


def training_row(name: str = "llava") -> tuple[dict, torch.Tensor]:
    """Inputs with labels on the text after the image, and the tokens that `Fixed` drops."""
    inputs = FAMILIES[name].inputs("single")
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -6:] = inputs["input_ids"][:, -6:]
    return {**inputs, "labels": labels}, dropped_from(FAMILIES[name], inputs)


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def compare_gradients(got: dict, wanted: dict) -> None:
    """Alike wherever the reference has one, to 1e-4 of the largest."""
    assert set(wanted) <= set(got)
    assert any("projector" in n for n in wanted) and any("vision_tower" in n for n in wanted)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in got.items():
        other = wanted.get(name, torch.zeros_like(gradient))
        assert float((gradient - other).abs().max()) < 1e-4 * scale, name


def masked_step(model, inputs: dict, dropped: torch.Tensor, k: int) -> torch.Tensor:
    with eager(model), masked_columns(model, dropped, k):
        loss = model(**inputs, use_cache=False).loss
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("k,method", [(0, Fixed()), (2, FixedAtLayer())])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_the_masked_reference(k, method, checkpointing):
    inputs, dropped = training_row()
    model, reference = (FAMILIES["llava"].build().train() for _ in range(2))
    wanted = masked_step(reference, inputs, dropped, k)
    if checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    if checkpointing and type(model.model.language_model.layers[0]).__call__ is not torch.nn.Module.__call__:
        with patch_model(model, method), pytest.raises(TokenPruneError, match="newer transformers"):
            model(**inputs, use_cache=False)
        return  # there the hooks run again when the backward pass recomputes a layer
    with patch_model(model, method):
        loss = model(**inputs, use_cache=False).loss
        loss.backward()
    assert torch.allclose(loss, wanted, rtol=1e-5)
    compare_gradients(gradients(model), gradients(reference))


@pytest.mark.parametrize("name,method", [("llava", "flashvlm"), ("qwen3_vl", "pool")])
def test_gradients_reach_every_part_that_a_method_reads(name, method):
    model = FAMILIES[name].build().train()
    inputs = FAMILIES[name].inputs("batch")
    with patch_model(model, method, keep=0.4):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    found = gradients(model)
    assert all(torch.isfinite(g).all() for g in found.values())
    tower = [float(g.abs().max()) for n, g in found.items() if "vi" in n.split(".")[1]]
    assert len(tower) > 20 and min(tower[:5]) >= 0 and max(tower) > 0


class _Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {k: v[0] for k, v in training_row()[0].items()}


def test_trainer_takes_the_steps_of_the_masked_reference(tmp_path):
    dropped = training_row()[1]

    def train(model, folder):
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=2,
            per_device_train_batch_size=1,
            learning_rate=0.05,
            optim="sgd",
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=_Rows())
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    pruned, reference = (FAMILIES["llava"].build() for _ in range(2))
    names = [n for n, _ in pruned.named_modules()]
    start = {n: p.detach().clone() for n, p in pruned.named_parameters()}
    with patch_model(pruned, Fixed()):
        losses = train(pruned, tmp_path / "pruned")
    with eager(reference), masked_columns(reference, dropped, 0):
        wanted = train(reference, tmp_path / "reference")
    assert len(losses) == 2 and losses == pytest.approx(wanted, rel=1e-3) and losses[1] < losses[0]
    assert [n for n, _ in pruned.named_modules()] == names
    moved = {n: p.detach() - start[n] for n, p in pruned.named_parameters()}
    assert float(moved["model.multi_modal_projector.linear_1.weight"].abs().max()) > 1e-4
    other = dict(reference.named_parameters())
    for name, change in moved.items():
        torch.testing.assert_close(change, other[name].detach() - start[name], rtol=1e-2, atol=2e-5)


# -- checkpoints and copies --------------------------------------------------------------------------------------


def test_a_checkpoint_written_while_patched_is_the_plain_one(tmp_path):
    family = FAMILIES["qwen2_5_vl"]
    model = family.build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with patch_model(model, "flashvlm", keep=0.3):
        model.generate(**family.inputs(), **GREEDY)
        assert model.state_dict().keys() == before.keys()
        model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert all(torch.equal(v, before[k]) for k, v in again.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again(**family.inputs()).logits, model(**family.inputs()).logits)


@torch.no_grad()
def test_two_patched_models_do_not_meet():
    llava, qwen = FAMILIES["llava"], FAMILIES["qwen2_5_vl"]
    first, second = llava.build(), qwen.build()

    def both():
        return [first.generate(**llava.inputs(), **GREEDY), second.generate(**qwen.inputs(), **GREEDY)]

    alone = []
    for model, method in ((first, "flashvlm"), (second, "uniform")):
        with patch_model(model, method, keep=0.3):
            alone.append(both())
    one, two = patch_model(first, "flashvlm", keep=0.3), patch_model(second, "uniform", keep=0.3)
    together = both()
    assert torch.equal(together[0], alone[0][0]) and torch.equal(together[1], alone[1][1])
    assert (one.report.before, two.report.before) == (25, 20)
    one.remove()  # the second one goes on
    assert [torch.equal(a, b) for a, b in zip(both(), alone[1])] == [True, True]
    two.remove()


@torch.no_grad()
def test_a_copied_cache_is_a_conversation_of_its_own():
    family = FAMILIES["gemma3"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_model(model, Fixed()):
        cache = model(**inputs, use_cache=True).past_key_values
        assert is_pruned(cache)
        twin = copy.deepcopy(cache)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)

        def step(token, past):
            ids = torch.tensor([[token], [token + 1]])
            types = torch.zeros_like(ids)
            return model(
                input_ids=ids, attention_mask=mask, token_type_ids=types, past_key_values=past, use_cache=True
            ).logits

        first = step(50, cache)
        other = step(60, twin)
        assert not torch.equal(first, other)
        assert cache.get_seq_length() == twin.get_seq_length() == inputs["input_ids"].shape[1] + 1
        again = copy.deepcopy(model(**inputs, use_cache=True).past_key_values)
        assert torch.equal(step(50, again), first)


@torch.no_grad()
def test_a_copied_model_is_refused_rather_than_run_on_the_parts_of_the_original():
    family = FAMILIES["llava"]
    model = family.build()
    with patch_model(model, "uniform", keep=5) as handle:
        twin = copy.deepcopy(model)
        model(**family.inputs())
        assert handle.report.after == 5
        with pytest.raises(TokenPruneError, match="copy"):
            twin(**family.inputs())
    copy.deepcopy(model)(**family.inputs())
