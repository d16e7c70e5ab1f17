"""Made-up rows in official formats, and a random model with SmolLM2's chat template: what a cold start needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swirl.models.loading import save

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with a default system turn."""
FIRST = ("Ada", "Bram", "Cleo", "Edda", "Falk", "Greta", "Hugo", "Iris")
LAST = ("Morn", "Drake", "Stone", "Vale", "Reed", "Holt", "Lund", "Byrne")
CITIES = ("Oslo", "Rome", "Cairo", "Lima", "Delhi", "Paris", "Quito", "Tunis")
COLOURS = ("Red", "Cold", "Lost", "Last", "Silent", "Golden", "Broken", "Hidden")
NOUNS = ("River", "Crown", "Harbour", "Forest", "Letter", "Mirror", "Bridge", "Garden")


def film(n: int) -> str:
    return f"{COLOURS[n % 8]} {NOUNS[n // 8 % 8]}"


def director(n: int) -> str:
    return f"{FIRST[(3 * n + n // 8) % 8]} {LAST[n // 8 % 8]}"


def city(n: int) -> str:
    return CITIES[(n * 5 + n // 8) % 8]


def pages(n: int) -> dict[str, list[str]]:
    """Title -> sentences of the two pages about film number `n`, below 64, with the director's page first."""
    return {
        director(n): [f"{director(n)} was born in {city(n)}.", f" {FIRST[n % 8]} sings."],
        film(n): [f"{film(n)} is a film of {1900 + n} directed by {director(n)}."],
    }


def hotpotqa(n: int) -> dict[str, Any]:
    """A bridge question, or for every fourth number a comparison."""
    both = pages(n)
    row = {"_id": f"h{n}", "question": f"In which city was the director of {film(n)} born?", "answer": city(n)}
    if n % 4 == 3:
        both = {film(n): pages(n)[film(n)], film(n - 1): pages(n - 1)[film(n - 1)]}
        row |= {"question": f"Which film is older, {film(n)} or {film(n - 1)}?", "answer": film(n - 1)}
    facts = [[title, 0] for title in both]
    kind = "comparison" if n % 4 == 3 else "bridge"
    return {**row, "level": "hard", "type": kind, "supporting_facts": facts, "context": list(both.items())}


def musique(n: int) -> dict[str, Any]:
    said = {title: "".join(sentences) for title, sentences in pages(n).items()}
    paragraphs = [{"title": title, "paragraph_text": text, "is_supporting": True} for title, text in said.items()]
    return {
        "id": f"2hop__{n}",
        "question": f"Name the place of birth of the one who made {film(n)}.",
        "answer": city(n),
        "answer_aliases": [],
        "answerable": True,
        "question_decomposition": [
            {"id": 1, "question": f"{film(n)} >> directed by", "answer": director(n)},
            {"id": 2, "question": "Where was #1 born?", "answer": city(n)},
        ],
        "paragraphs": paragraphs,
    }


def gsm8k(n: int) -> dict[str, str]:
    first, second, each = n % 7 + 2, n % 5 + 3, n % 3 + 2
    total = first + second
    return {
        "question": f"Row {n}: Ada has {first} red pens and {second} blue pens. Each costs {each}. What do they cost?",
        "answer": f"Ada has {first}+{second}=<<{first}+{second}={total}>>{total} pens.\n"
        f"They cost {total}*{each}=<<{total}*{each}={total * each}>>{total * each} coins.\n#### {total * each}",
    }


def own(n: int) -> dict[str, Any]:
    """A question of an own task with search and calculator, and its demonstration."""
    return {
        "id": f"o{n}",
        "question": f"How old was {film(n)} in 2000?",
        "answers": [str(100 - n)],
        "demonstration": [
            f"When was it made? <search_query> {film(n)} </search_query>",
            f"From {1900 + n} to 2000. <math_exp> 2000 - {1900 + n} </math_exp>",
            f"<answer> {100 - n} </answer>",
        ],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def pretrained(folder: Path, texts: list[str], context: int = 1024) -> Path:
    """A random Llama with a byte-level tokenizer whose merges come from `texts`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Tokenizer

    empty = Qwen2Tokenizer(chat_template=TEMPLATE)
    tokenizer = empty.train_new_from_iterator(texts, 700, new_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token = "<|im_end|>"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    save(LlamaForCausalLM(LlamaConfig(**shape)), tokenizer, folder)
    return folder
