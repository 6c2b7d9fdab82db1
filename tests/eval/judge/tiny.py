"""A vision-language model of 40,000 weights, made and taught in seconds: it says Yes where the last frame is green."""

import importlib.util

import pytest
import torch

from understudy.eval.judge.prompt import Rubric, chosen, enlarged, question

from .conftest import film

TASK, SIDE, FRAMES = "Turn it green.", 32, 3
SPECIAL = [
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    "<pad>",
    "<unk>",
]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def library():
    """transformers; skipped where it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers comes with the extra `vision`")
    from understudy.configs.compat import prepare_torchvision

    prepare_torchvision()
    import transformers

    return transformers


def asked_of(won: bool):
    frames = film(won)
    shown = [enlarged(frames[place], SIDE) for place in chosen(len(frames), FRAMES)]
    return question(Rubric(task=TASK), tuple(shown))


def words(transformers, special: list[str]):
    """A tokenizer that knows the question."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    asked = asked_of(True)
    letters = Tokenizer(models.BPE(unk_token="<unk>"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    letters.train_from_iterator(3 * [asked.system, asked.begin, asked.end, "Assistant:Yes", "Assistant:No"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, bos_token=special[0], eos_token=special[1], pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=special[1:-2],
    )  # fmt: skip


def make(transformers):
    """(model, processor): an Idefics3, as SmolVLM is one, with random weights."""
    tokenizer = words(transformers, SPECIAL)
    number = tokenizer.convert_tokens_to_ids
    pictures = transformers.Idefics3ImageProcessor(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    processor = transformers.Idefics3Processor(
        image_processor=pictures, tokenizer=tokenizer, image_seq_len=4, chat_template=TEMPLATE
    )
    seen = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "pad_token_id": number("<pad>"),
    }
    text |= {"bos_token_id": number("<|im_start|>"), "eos_token_id": number("<end_of_utterance>")}
    config = transformers.Idefics3Config(
        vision_config=seen | {"image_size": SIDE, "patch_size": 8},
        text_config=seen | text,
        scale_factor=2,
        image_token_id=number("<image>"),
        pad_token_id=number("<pad>"),
    )
    torch.manual_seed(0)
    return transformers.Idefics3ForConditionalGeneration(config), processor


def given(processor, won: bool) -> dict:
    from PIL import Image

    asked = asked_of(won)
    content = [
        {"type": "text", "text": asked.begin},
        *[{"type": "image"}] * FRAMES,
        {"type": "text", "text": asked.end},
    ]
    told = [
        {"role": "system", "content": [{"type": "text", "text": asked.system}]},
        {"role": "user", "content": content},
    ]
    text = processor.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
    return processor(text=[text], images=[[Image.fromarray(frame) for frame in asked.frames]], return_tensors="pt")


def teach(model, processor, most: int = 80) -> float:
    """Teach it to answer, until it does; the last loss."""
    rows = []
    for won, word in ((True, "Yes"), (False, "No")):
        inputs, end = given(processor, won), SPECIAL.index("<end_of_utterance>")
        answer = torch.tensor([[*processor.tokenizer(word, add_special_tokens=False)["input_ids"], end]])
        tokens = torch.cat([inputs["input_ids"], answer], 1)
        seen = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask")}
        labels = torch.cat([torch.full_like(inputs["input_ids"], -100), answer], 1)
        rows.append(seen | {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels})
    batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    optimizer, loss = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.0), torch.tensor(9.0)
    for _ in range(most):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    return float(loss.detach())


def save(folder, transformers, most: int = 80) -> float:
    """Taught and saved as users' models are."""
    model, processor = make(transformers)
    loss = teach(model, processor, most)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return loss


def save_qwen(folder, transformers) -> None:
    """A Qwen2-VL with random weights."""
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    if int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("Qwen2-VL of transformers 4 takes a tokenizer of its own alone")
    tokenizer = words(transformers, [*special, "<pad>", "<unk>"])
    number = tokenizer.convert_tokens_to_ids
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    template = TEMPLATE.replace("<image>", seen).replace("<end_of_utterance>", "<|im_end|>")
    parts = {"image_processor": transformers.Qwen2VLImageProcessor(min_pixels=784, max_pixels=3136)}
    if hasattr(transformers, "Qwen2VLVideoProcessor"):
        parts |= {"video_processor": transformers.Qwen2VLVideoProcessor()}
    processor = transformers.Qwen2VLProcessor(**parts, tokenizer=tokenizer, chat_template=template)
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "num_heads": 2,
            "hidden_size": 32,
            "mlp_ratio": 1,
            "patch_size": 14,
        },
        **{key: number(name) for key, name in names.items()},
    )
    torch.manual_seed(0)
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
