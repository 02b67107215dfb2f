import pytest
import torch
import torch.nn.functional as F

from omnistream.language.chat import IGNORED, collate_chats, tokenize_chat
from omnistream.language.cross_entropy import chunked_cross_entropy
from omnistream.language.decoder import DecoderConfig, LanguageDecoder, pretrained_llm, random_llm
from omnistream.language.prompts import Prompt
from omnistream.language.tokenizer import ByteTokenizer

TINY = DecoderConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=64, max_positions=512
)
PROMPTS = (Prompt("Say.", "ab"), Prompt("What is it?", "a longer answer"), Prompt("Where?", "x"))


def _decoder(**kwargs) -> LanguageDecoder:
    tokenizer = ByteTokenizer()
    return LanguageDecoder(random_llm(TINY, tokenizer.vocab_size), tokenizer, **kwargs)


def _chats(max_text_tokens=128):
    return [tokenize_chat(ByteTokenizer(), prompt, max_text_tokens) for prompt in PROMPTS]


@pytest.mark.parametrize("chunk_size", [3, 7, 1024])
def test_chunked_loss_and_gradients_equal_those_of_transformers(chunk_size):
    decoder, visual = _decoder(loss_chunk_size=chunk_size), torch.randn(3, 4, 32, requires_grad=True)
    batch = collate_chats(_chats(), 4, decoder.tokenizer)
    embeddings = decoder.llm.get_input_embeddings()(batch.ids).masked_scatter(batch.visual[..., None], visual)
    expected = decoder.llm(
        inputs_embeds=embeddings, attention_mask=batch.attended.long(), labels=batch.labels, use_cache=False
    ).loss
    parameters = [visual, *decoder.llm.parameters()]
    expected_gradients = torch.autograd.grad(expected, parameters)
    output = decoder(visual, _chats())
    loss = output.loss.sum() / output.num_tokens.sum()
    # float32: sums in another order
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for got, wanted in zip(torch.autograd.grad(loss, parameters), expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_loss_is_per_sample_and_independent_of_its_neighbours():
    decoder, visual = _decoder().eval(), torch.randn(3, 4, 32)
    together = decoder(visual, _chats())
    assert together.num_tokens.tolist() == [3, 16, 2]
    for i, item in enumerate(_chats()):
        torch.testing.assert_close(decoder(visual[i : i + 1], [item]).loss[0], together.loss[i])


def test_token_losses_match_cross_entropy():
    hidden, weight = torch.randn(9, 5), torch.randn(11, 5)
    target = torch.randint(11, (9,))
    expected = F.cross_entropy(hidden @ weight.T, target, reduction="none")
    torch.testing.assert_close(chunked_cross_entropy(hidden, weight, target, 4), expected)


def test_a_batch_without_answer_tokens_is_finite_and_has_zero_gradients():
    decoder, visual = _decoder(), torch.randn(3, 4, 32, requires_grad=True)
    output = decoder(visual, _chats(max_text_tokens=5))
    assert output.num_tokens.tolist() == [0, 0, 0]
    assert output.loss.tolist() == [0, 0, 0]
    output.loss.sum().backward()
    assert visual.grad.abs().max() == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_passes_through_a_frozen_decoder(checkpointing):
    decoder = _decoder(trainable=False, activation_checkpointing=checkpointing).train()
    visual = torch.randn(3, 4, 32, requires_grad=True)
    decoder(visual, _chats()).loss.sum().backward()
    assert (visual.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is None for p in decoder.parameters())


def test_activation_checkpointing_changes_nothing():
    plain, visual = _decoder().train(), torch.randn(3, 4, 32, requires_grad=True)
    saving = LanguageDecoder(random_llm(TINY, 266), ByteTokenizer(), activation_checkpointing=True).train()
    saving.llm.load_state_dict(plain.llm.state_dict())
    gradients = [torch.autograd.grad(model(visual, _chats()).loss.sum(), visual)[0] for model in (plain, saving)]
    assert torch.equal(*gradients)


def _without_cache(decoder, visual, item, limit):
    """The slow twin of generation: the whole sequence again for every token, no padding."""
    batch = collate_chats([item], visual.shape[1], decoder.tokenizer, prompts_only=True)
    embeddings = decoder.llm.get_input_embeddings()(batch.ids).masked_scatter(batch.visual[..., None], visual)
    tokens = []
    for _ in range(limit):
        token = decoder.llm(inputs_embeds=embeddings).logits[0, -1].argmax()
        if token in (decoder.tokenizer.control.im_end, decoder.tokenizer.control.endoftext):
            break
        tokens.append(int(token))
        embeddings = torch.cat([embeddings, decoder.llm.get_input_embeddings()(token[None, None])], dim=1)
    return tokens


@torch.no_grad()
def test_generation_in_a_batch_equals_one_by_one_without_cache():
    decoder, visual = _decoder().eval(), torch.randn(3, 4, 32)
    for parameter in decoder.parameters():  # the initial weights repeat one token
        parameter.mul_(3.0)
    together = decoder(visual, _chats(), 12).generated
    assert len({tuple(row) for row in together}) == 3
    for i, item in enumerate(_chats()):
        assert together[i] == _without_cache(decoder, visual[i : i + 1], item, 12)
        assert together[i] == decoder(visual[i : i + 1], [item], 12).generated[0]


@torch.no_grad()
def test_generation_stops_at_im_end_row_by_row():
    decoder = _decoder().eval()
    control = decoder.tokenizer.control
    script = iter([[65, 65], [control.im_end, 66], [67, 67], [67, control.im_end]])
    calls = []

    def scripted(_module, _args, kwargs, output):
        calls.append(kwargs["attention_mask"].shape[1])
        output.last_hidden_state = decoder.llm.get_input_embeddings()(torch.tensor(next(script)))[:, None]
        return output

    with torch.no_grad():  # orthogonal rows, so that a row's own token wins
        decoder.llm.get_input_embeddings().weight.copy_(F.normalize(torch.randn(266, 32), dim=-1))
    decoder.llm.model.register_forward_hook(scripted, with_kwargs=True)
    assert decoder(torch.randn(2, 4, 32), _chats()[:2], 10).generated == [[65], [65, 66, 67]]
    assert len(calls) == 4


def test_a_saved_model_is_loaded_in_float32(tmp_path):
    llm = random_llm(TINY, 300).to(torch.bfloat16)
    llm.save_pretrained(tmp_path)
    loaded = pretrained_llm(str(tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.get_input_embeddings().weight, llm.get_input_embeddings().weight.float())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="100 embedding rows for 266 tokens"):
        LanguageDecoder(random_llm(TINY, 100), ByteTokenizer())
    with pytest.raises(ValueError, match="multiple of num_kv_heads"):
        DecoderConfig(num_heads=3, num_kv_heads=2)
    assert IGNORED == -100
