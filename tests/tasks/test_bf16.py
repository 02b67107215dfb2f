"""Training in `bf16-mixed`: heads and losses are float32 forward and backward, whatever the backbone computes in.

The twin is the same module in float32, given the very features that the backbone made in bfloat16. Both do the same
operations, so everything is equal bit for bit.
"""

import copy
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from multitask_runs import first_batch, fit, make_module

from omnistream.backbone import BackboneOutput
from omnistream.language import chunked_cross_entropy
from omnistream.tasks.ssl.dino import dino_loss


def detached(output: BackboneOutput) -> BackboneOutput:
    values = {f.name: getattr(output, f.name) for f in fields(output)}
    values = {name: v.detach() if isinstance(v, torch.Tensor) else v for name, v in values.items()}
    return replace(output, **{**values, "patches": {i: p.detach() for i, p in output.patches.items()}})


def backbones(module: torch.nn.Module) -> list[torch.nn.Module]:
    ssl = module.objectives["ssl"]
    return [module.backbone, ssl.teacher.backbone, ssl.gram_teacher.backbone]


@pytest.fixture(scope="module")
def step_and_twin(tmp_path_factory):
    """One step in bf16-mixed, and the twin's terms and gradients: (numbers, gradients, terms, twin's gradients)."""
    module = make_module()
    module.optimizer_config.grad_clip = None
    twin, gradients, tapes, inputs = copy.deepcopy(module), {}, [], []
    for network in backbones(module):
        forward, tape = network.forward, []

        def recorded(*args, forward=forward, tape=tape, **kwargs):
            tape.append(detached(output := forward(*args, **kwargs)))
            if forward.__self__ is module.backbone:
                inputs.append((args, kwargs))
            return output

        network.forward = recorded
        tapes.append(tape)

    def capture(optimizer, args, kwargs):
        gradients.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    def configured(configure=module.configure_optimizers):
        made = configure()
        made["optimizer"].register_step_pre_hook(capture)
        return made

    module.configure_optimizers = configured
    (numbers,) = fit(tmp_path_factory.mktemp("bf16"), steps=1, module=module, precision="bf16-mixed")
    # The backbone did compute in bfloat16, which has steps of 2^-8.
    with torch.no_grad():
        exact = twin.backbone.train()(*inputs[0][0], **inputs[0][1]).last
    assert 1e-3 < (tapes[0][0].last - exact).abs().max() < 1
    for network, tape in zip(backbones(twin), tapes, strict=True):
        network.forward = lambda *args, tape=tape, **kwargs: tape.pop(0)
    twin.train()
    batch, terms = first_batch(), {}
    for name in ("ssl", "geometry"):
        task = twin.objectives[name]
        task.total_steps = 1
        for part, micro_batch in task.micro_batches(batch[name]).items():
            loss = task.compute(twin.backbone, micro_batch, 0)
            (twin.weights[name] * loss.total).backward()
            prefix = f"train/{name}/{part}" if part else f"train/{name}"
            terms |= {f"{prefix}/{term}": v.item() for term, v in {**loss.terms, "loss": loss.total}.items()}
    return numbers, gradients, terms, {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}


def test_terms_are_those_of_the_float32_twin(step_and_twin):
    numbers, _, terms, _ = step_and_twin
    assert len(terms) > 20
    assert {name: numbers[name] for name in terms} == terms


@pytest.mark.parametrize("head", ["ssl.dino_head", "ssl.ibot_head", "geometry.dense", "geometry.camera"])
def test_gradients_of_heads_are_those_of_the_float32_twin(step_and_twin, head):
    _, gradients, _, expected = step_and_twin
    names = [name for name in expected if name.startswith(f"tasks.{head}.")]
    assert names
    assert all(expected[name].any() for name in names if name.endswith("weight"))
    for name in names:
        assert gradients[name].dtype == torch.float32
        assert torch.equal(gradients[name], expected[name]), name


def test_the_dino_loss_is_not_rounded():
    """11.1101 and 11.1109 are one number in bfloat16."""
    logits, targets = torch.randn(4, 3, 65536) / 50, torch.softmax(torch.randn(2, 3, 65536), dim=-1)
    values = []
    for factor in (1.0, 1.01):
        leaf = (factor * logits).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = dino_loss(leaf, targets)
        (gradient,) = torch.autograd.grad(loss, leaf)
        plain = dino_loss(leaf, targets)
        assert torch.equal(loss, plain)
        assert torch.equal(gradient, torch.autograd.grad(plain, leaf)[0])
        values.append(loss.item())
    assert 0 < abs(values[0] - values[1]) < 0.03
    assert torch.tensor(values).bfloat16().unique().numel() == 1


def test_the_token_loss_is_not_rounded():
    hidden, weight = torch.randn(7, 16).bfloat16().requires_grad_(), torch.randn(300, 16).requires_grad_()
    target = torch.randint(300, (7,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, target, chunk_size=3)
    gradients = torch.autograd.grad(loss.sum(), (hidden, weight))
    plain = F.cross_entropy(hidden.float() @ weight.T, target, reduction="none")
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)  # chunks add in another order
    expected = torch.autograd.grad(plain.sum(), (hidden, weight))
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
