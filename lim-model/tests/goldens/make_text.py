"""Makes the goldens of chat templates and tokenizers with HF transformers; see make.py for the models.

    pip install transformers tokenizers jinja2 && python lim-model/tests/goldens/make_text.py

templates/cases.json          conversations and the prompts that HF renders from the templates beside it
tokenizers/NAME/              tokenizer.json, tokenizer_config.json, and expected.json: texts, ids, decoded ids

The templates are written for these tests. Each follows a published model's prompt format; corners.jinja follows none.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent

SYSTEM = {"role": "system", "content": "  You are terse.\n"}
USER = {"role": "user", "content": "Is 1 < 2 & \"so\"? é 𝄞"}
THOUGHT = {"role": "assistant", "content": "<think>\nOne is less.\n</think>\n\nYes."}
PLAIN = {"role": "assistant", "content": "Yes."}
AGAIN = {"role": "user", "content": "And 2 < 1?\n"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Finds <things> & \"more\", même à l'étranger.",
            "parameters": {
                "type": "object",
                "properties": {"q": {"type": "string"}, "limit": {"type": "number", "default": 1e-05}},
                "required": ["q"],
                "extra": [],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {}}},
]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "look_up", "arguments": {"q": "a<b", "n": [1, 2.5, None]}}}],
}
RESULT = {"role": "tool", "content": "nothing"}
CONVERSATIONS = {
    "question": [USER],
    "system": [SYSTEM, USER],
    "second question": [SYSTEM, USER, THOUGHT, AGAIN],
    "answered": [USER, THOUGHT],
    "plain answers": [USER, PLAIN, AGAIN, PLAIN],
    "reasoning apart": [USER, {"role": "assistant", "content": "Yes.", "reasoning_content": "\nOne is less.\n"}],
}
WITH_TOOLS = {
    "tools": [SYSTEM, USER],
    "tools without system": [USER],
    "tool call": [USER, CALL, RESULT],
    "tool call answered": [SYSTEM, USER, CALL, RESULT, PLAIN, AGAIN],
}
BOS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
R1 = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
DATA = {
    "z": [1, 2.0, -0.5, 1e16, 1e22, 1.5e-7, 0.0001, 123456789012345680.0, True, None],
    "a": {"é": "𝄞 \u2028 </tag> \\ \" \t\x01\x7f", "empty": {}, "none": []},
    "m": {"b": {"c": [{"d": 1}]}},
}


def case(template, name, messages, variables, tokens, prompt=True):
    source = (HERE / "templates" / template).read_text()
    entry = {
        "name": name,
        "template": template,
        "messages": messages,
        "add_generation_prompt": prompt,
        "variables": variables,
        "special_tokens": tokens,
    }
    try:
        rendered, _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=prompt, **variables, **tokens)
        entry["prompt"] = rendered[0]
    except Exception as e:
        entry["error"] = str(e)
    return entry


def make_templates():
    cases = []
    for name, messages in CONVERSATIONS.items():
        for prompt in [True, False]:
            cases.append(case("chatml-think.jinja", name, messages, {}, {}, prompt))
            cases.append(case("headers-date.jinja", name, messages, {}, BOS, prompt))
            cases.append(case("r1.jinja", name, messages, {}, R1, prompt))
        for thinking in [True, False]:
            cases.append(case("chatml-think.jinja", name, messages, {"enable_thinking": thinking}, {}))
    for name, messages in WITH_TOOLS.items():
        cases.append(case("chatml-think.jinja", name, messages, {"tools": TOOLS}, {}))
        cases.append(case("headers-date.jinja", name, messages, {"tools": TOOLS, "date_string": "1 Jan 2026"}, BOS))
    both = dict(CALL, tool_calls=CALL["tool_calls"] * 2)
    cases.append(case("headers-date.jinja", "two calls", [USER, both], {"tools": TOOLS}, BOS))
    odd = [USER, {"role": "skip", "content": "x"}, {"role": "user", "content": " banana "}, {"role": "stop", "content": ""}, USER]
    cases.append(case("corners.jinja", "corners", odd, {"data": DATA}, {}))
    cases.append(case("corners.jinja", "raises", odd, {"data": DATA, "fail": "reason"}, {}))
    (HERE / "templates" / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(len(cases), "prompts")


TEXTS = [
    "",
    "Hello world",
    " leading and trailing ",
    "tabs\tand\nnew\n\nlines 123456",
    "é 𝄞 你好 👩‍👩‍👧 ﷽",
    "<|im_start|>user\nhi<|im_end|>",
    "<s>[INST] x [/INST]</s>",
    "aaaaaaaaaaaaaaaa the the the",
    "\u0000\u007f\ufffd end",
]
CORPUS = ["the quick brown fox jumps over the lazy dog", "Hello world, hello there", "1234567890 + 987 = 2 < 3"] * 8


def byte_level():
    """Bytes as in Qwen and Llama 3: no BOS, special tokens <|im_start|> and so on."""
    t = Tokenizer(models.BPE(byte_fallback=False))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<think>", special=False, normalized=False), AddedToken("</think>", special=False, normalized=False)])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False}
    return t, config


def with_bos():
    """The same with a BOS that the post-processor adds, as in Llama 3."""
    t, config = byte_level()
    t.add_special_tokens(["<|begin_of_text|>"])
    bos = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B", special_tokens=[("<|begin_of_text|>", bos)])
    return t, {**config, "bos_token": {"content": "<|begin_of_text|>", "__type": "AddedToken"}}


def metaspace():
    """Sentence-piece style with byte fallback, as in Llama 2 and early Mistral."""
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    alphabet = [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, special_tokens=special + alphabet, show_progress=False))
    state = json.loads(t.to_str())
    state["added_tokens"] = [a for a in state["added_tokens"] if a["content"] in special]
    t = Tokenizer.from_str(json.dumps(state))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    return t, config


def make_tokenizers():
    for name, make in [("byte-level", byte_level), ("byte-level-bos", with_bos), ("metaspace", metaspace)]:
        folder = HERE / "tokenizers" / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer, config = make()
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        hf = AutoTokenizer.from_pretrained(folder)
        entries = []
        for text in TEXTS:
            ids = hf(text)["input_ids"]
            entries.append(
                {
                    "text": text,
                    "ids": ids,
                    "plain_ids": hf(text, add_special_tokens=False)["input_ids"],
                    "decoded": hf.decode(ids, skip_special_tokens=False),
                    "decoded_plain": hf.decode(ids, skip_special_tokens=True),
                }
            )
        (folder / "expected.json").write_text(json.dumps(entries, indent=1) + "\n")
        print(name, len(hf), "tokens")


if __name__ == "__main__":
    make_templates()
    make_tokenizers()
