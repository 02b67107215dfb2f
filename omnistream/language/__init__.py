"""What captioning and language models share: tokenizer, prompts, chat, decoder, projector."""
