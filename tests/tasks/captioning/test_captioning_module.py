import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from omnistream.backbone import create_model
from omnistream.data.batch import CaptionClip, TextTarget
from omnistream.metrics import unigram_entropy
from omnistream.tasks.captioning import CaptioningModule, DecoderConfig
from omnistream.tasks.optimization import OptimizerConfig

TINY = DecoderConfig(
    hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, intermediate_size=128, max_positions=512
)


def _module(**kwargs) -> tuple[torch.nn.Module, CaptioningModule]:
    backbone = create_model("vit_nano")
    return backbone, CaptioningModule(backbone, **{"decoder": TINY, **kwargs})


@pytest.mark.parametrize("train_decoder", [True, False])
def test_gradient_reaches_the_backbone(captions, train_decoder):
    backbone, module = _module(train_decoder=train_decoder)
    loss = module.compute(backbone, captions, 0)
    loss.total.backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.blocks[0].attn.parameters() if p.ndim > 1
    )
    assert all((p.grad is not None) == train_decoder for p in module.decoder.parameters())
    assert not loss.terms["token"].requires_grad


def test_terms_name_every_kind_of_target_and_average_to_the_total(mixed):
    backbone, module = _module()
    loss = module.compute(backbone.eval(), mixed, 0)
    assert set(loss.terms) == {"token"}
    counts = [len(item.answer) for item in module.chats(mixed)]
    names = ["caption", "ocr", "grounding", "region"]
    mean = sum(float(loss.details[name]) * count for name, count in zip(names, counts, strict=True)) / sum(counts)
    assert float(loss.total.detach()) == pytest.approx(mean, rel=1e-5)
    summed = module.token_loss(backbone, mixed)
    assert int(summed.count) == sum(counts)
    assert float(summed.total / summed.count) == pytest.approx(float(loss.total.detach()), rel=1e-5)


def test_a_batch_whose_answers_were_all_cut_is_finite(captions):
    backbone, module = _module(max_text_tokens=5)
    loss = module.compute(backbone, captions, 0)
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("reduction", ["none", "avgpool2x2", "pixel_shuffle2x2"])
def test_clips_give_tokens_of_all_frames(reduction, make_batch):
    backbone, module = _module(token_reduction=reduction)
    batch = make_batch([TextTarget("caption", "x")] * 2, frames=3)
    tokens = module.visual_tokens(backbone, batch)
    assert tokens.shape == (2, 3 * 16 // (1 if reduction == "none" else 4), 64)


def test_evaluation_leaves_modes_and_weights_alone(mixed):
    backbone, module = _module(max_new_tokens=2)
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.token_loss(backbone, mixed)
    module.generate(backbone, mixed)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_metrics_of_one_pass_are_those_of_separate_passes(mixed):
    backbone, module = _module(num_generations=3, max_new_tokens=8)
    module.eval()
    passes = []
    hook = backbone.register_forward_hook(lambda *_: passes.append(1))
    module.update_metrics(backbone, mixed, module.compute(backbone, mixed, 0))
    hook.remove()
    assert len(passes) == 1
    samples, results = module.samples, module.metrics.compute()
    assert [sample.target.task for sample in samples] == ["caption", "ocr", "grounding"]
    assert torch.equal(samples[1].images, mixed.images[1])
    assert [sample.generated for sample in samples] == module.generate(backbone, mixed)[:3]
    baselines = {"token_loss_unigram", "token_loss_other_image"}
    assert set(results) == {"token_loss", "exact_match", "word_accuracy", "box_iou"} | baselines
    for name, shuffled in (("token_loss", False), ("token_loss_other_image", True)):
        apart = module.token_loss(backbone, mixed, shuffle_images=shuffled)
        assert float(results[name]) == pytest.approx(float(apart.total / apart.count), rel=1e-6)
    assert abs(results["token_loss"] - results["token_loss_other_image"]) > 1e-4  # or the two could be exchanged
    assert results["token_loss_unigram"] == unigram_entropy(module.answer_token_counts(mixed))


def test_a_batch_of_one_has_no_loss_with_another_image(make_batch):
    backbone, module = _module(num_generations=0)
    batch = make_batch([TextTarget("caption", "x")])
    module.eval()
    module.update_metrics(backbone, batch, module.compute(backbone, batch, 0))
    assert set(module.compute_metrics()) == {"token_loss", "token_loss_unigram"}


def test_plots_show_truth_and_answer_with_boxes(mixed):
    backbone, module = _module(max_new_tokens=4)
    module.eval()
    assert module.plots(backbone, mixed, 1) == {}  # nothing was generated yet
    module.update_metrics(backbone, mixed, module.compute(backbone, mixed, 0))
    plot = module.plots(backbone, mixed, 1)["answers"]
    assert len(plot.items) == 3
    assert plot.items[0].truth == "a red square"
    assert "<|object_ref_start|>HI<|object_ref_end|>" in plot.items[1].truth
    assert plot.items[2].truth_boxes == (pytest.approx((0.0, 0.0, 1.0, 0.5), abs=1e-3),)
    assert "the sky" in plot.items[2].instruction
    assert all(torch.equal(item.images, images) for item, images in zip(plot.items, mixed.images, strict=False))


def test_generations_of_a_validation_are_kept_until_the_next(mixed):
    backbone, module = _module(num_generations=6, max_new_tokens=2)
    module.eval()
    for _ in range(2):
        for _ in range(2):
            module.update_metrics(backbone, mixed, module.compute(backbone, mixed, 0))
        assert len(module.samples) == 6
        assert "box_iou" in module.compute_metrics()
        assert len(module.samples) == 6
    assert module.compute_metrics() == {}


def test_instructions_follow_the_seeds_of_the_batch(captions):
    _, module = _module()
    other = CaptionClip(images=captions.images, target=captions.target, name=captions.name, seed=captions.seed + 77)
    assert module.prompts(captions) == module.prompts(captions)
    assert [w.instruction for w in module.prompts(captions)] != [w.instruction for w in module.prompts(other)]


def test_shuffling_needs_a_neighbour(make_batch):
    backbone, module = _module()
    with pytest.raises(ValueError, match="at least two samples"):
        module.token_loss(backbone, make_batch([TextTarget("caption", "x")]), shuffle_images=True)


def test_a_single_sample_is_refused_as_a_batch():
    _, module = _module()
    sample = CaptionClip(
        images=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        target=TextTarget("caption", "x"),
        name="",
        seed=torch.tensor(0),
    )
    with pytest.raises(ValueError, match="expected a batch"):
        module.chats(sample)


class _Repeated(torch.utils.data.Dataset):
    def __init__(self, batch: CaptionClip, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> CaptionClip:
        i = index % len(self.batch.images)
        return CaptionClip(
            images=self.batch.images[i], target=self.batch.target[i], name=str(i), seed=self.batch.seed[i]
        )


def test_it_memorises_captions_by_looking(captions):
    # Fitted alone through Lightning; the four answers can only be told apart by the images.
    torch.manual_seed(0)
    optimizer = OptimizerConfig(lr=3e-3, warmup_steps=10)
    backbone, module = _module(optimizer=optimizer, num_generations=4, max_new_tokens=32)
    loader = DataLoader(_Repeated(captions, 1040), batch_size=8, collate_fn=CaptionClip.collate)
    validation = DataLoader(_Repeated(captions, 4), batch_size=4, collate_fn=CaptionClip.collate)
    trainer = lightning.Trainer(
        max_steps=130,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    (results,) = trainer.validate(module, validation, verbose=False)
    assert results["val/captioning/token_loss"] < 0.1
    assert results["val/captioning/exact_match"] == 1.0
    assert sorted(sample.generated for sample in module.samples) == sorted(target.text for target in captions.target)
    shuffled = module.token_loss(backbone, captions, shuffle_images=True)
    assert float(shuffled.total / shuffled.count) > 1.0
    assert results["val/captioning/token_loss"] < unigram_entropy(module.answer_token_counts(captions))
