"""The section of `base_model`, one class per `source`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from swirl.config.section import Count, Positive, Section, Share, Word
from swirl.config.served import Served
from swirl.config.train import Lora

Hops = Annotated[Mapping[Count, Positive], Field(min_length=1)]
Calculations = Annotated[Mapping[Annotated[int, Field(ge=2, le=8)], Positive], Field(min_length=1)]


def _check_heads(hidden: int, heads: int) -> None:
    """Raise `ValueError` unless a head's share of the hidden size is even: positions turn its numbers in pairs."""
    if hidden % (2 * heads):
        nearest = 2 * heads * max(1, round(hidden / (2 * heads)))
        raise ValueError(f"hidden is {hidden} and heads {heads}: hidden must be a multiple of 2 * heads, as {nearest}")


class Shape(Section):
    """Size of an embedded model (a Qwen3 decoder with tied embeddings)."""

    hidden: Count = Field(description="hidden size")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads")
    feed_forward: Count = Field(description="feed-forward size")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")

    @model_validator(mode="after")
    def _heads_fit(self) -> Shape:
        _check_heads(self.hidden, self.heads)
        return self


class Phase(Section):
    """One phase of training from scratch, with Muon and AdamW on a cosine schedule."""

    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="sequences per step")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    search: Annotated[float, Field(ge=0)] = Field(description="share of search demonstrations in fresh worlds")
    calculate: Annotated[float, Field(ge=0)] = Field(description="share of word problems")
    recall: Annotated[float, Field(ge=0)] = Field(description="share answered from memory of the fixed world")
    remembered_search: Annotated[float, Field(ge=0)] = Field(description="share of searches in the fixed world")
    copying: Annotated[float, Field(ge=0)] = Field(description="share of drills: repeat random words and numbers")
    judged: Share = Field(description="share of demonstrations that end in a judge's question and its verdict")
    sound: Share = Field(description="share of sound demonstrations among the others; the rest is flawed")


class DesignedFlaws(Section):
    """How often a flawed demonstrator errs."""

    contextual: Share = Field(description="probability of the flaw that a trigger invites")
    anywhere: Share = Field(description="probability of an untriggered flaw in a step")


class Weights(Section):
    """Where a model is that was trained elsewhere."""

    model: str = Field(description="hub id, as Qwen/Qwen3-0.6B, or a folder, or a .gguf file")
    revision: str = Field(description="commit of the hub repository; '' for a folder or file")


class Pretrained(Weights):
    """A model that was trained elsewhere: models/X holds a pointer to it, never a copy."""

    source: Literal["pretrained"] = Field(description="a model of the Hugging Face hub, or a folder, or a GGUF file")
    trust_remote_code: bool = Field(description="run code that comes with the model: only if you have read it")


class FineTuning(Weights):
    """Supervised training of a model that was trained elsewhere, on conversations."""

    lora: Lora | None = Field(description="train an adapter, which is then merged into the weights; null: all weights")
    epochs: Count = Field(description="passes over the conversations")
    batch_size: Count = Field(description="conversations an optimiser step")
    token_budget: Count = Field(description="tokens that one forward reads at most, if one conversation has not more")
    lr: Positive = Field(description="peak learning rate of AdamW, which decays by half a cosine")
    warmup: Annotated[int, Field(ge=0)] = Field(description="steps of linear warm-up; 0: none")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="AdamW's weight decay; 0: none")
    clip: Positive = Field(description="largest gradient norm")
    gradient_checkpointing: bool = Field(description="compute activations twice to hold fewer in memory; same numbers")
    mixed_precision: Literal["no", "bf16"] = Field(description="bf16 autocast in training; what trains is float32")


class ColdStart(FineTuning):
    """A model that was trained elsewhere, taught our format and the habit of using tools by demonstrations.

    These are written from the annotations of the pretrain split's questions, and played with the real tools. An adapter
    that it was taught by is kept beside the merged weights.
    """

    source: Literal["cold_start"] = Field(
        description="a model of the hub, a folder or a GGUF file, taught by demonstrations"
    )


class EndpointBase(Section):
    """A policy behind a server: it can synthesise trajectories and be evaluated, but not be trained."""

    source: Literal["endpoint"] = Field(description="a server")
    tokenizer: str = Field(description="hub id, folder or .gguf file of the tokenizer, for prompts and token counts")
    revision: str = Field(description="commit of the tokenizer's hub repository; '' for a folder or file")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")
    server: Served


class EmbeddedBase(Section):
    """The base model, trained from scratch in phases."""

    source: Literal["embedded"] = Field(description="made here, out of the generated world")
    shape: Shape
    hops: Hops = Field(description="hops of search demonstrations -> share")
    steps: Calculations = Field(description="steps of word problems -> share")
    other_weight: Share = Field(description="loss weight of tokens that are not the model's own; 0: none")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")
    sound_phases: Annotated[list[Phase], Field(min_length=1)] = Field(description="up to the sound model, the ceiling")
    flawed_phase: Phase = Field(description="from the sound model to the base")
    flaws: DesignedFlaws


class WindowedShape(Section):
    """Size of a Gemma-2-shaped model."""

    vocabulary: Annotated[int, Field(ge=300)] = Field(description="tokens of the BPE vocabulary")
    digits: Annotated[int, Field(ge=1, le=3)] = Field(description="digits of a number that may share a token")
    hidden: Count = Field(description="hidden size")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads")
    feed_forward: Count = Field(description="feed-forward size")
    context: Annotated[int, Field(ge=64)] = Field(description="longest conversation in tokens")
    window: Count = Field(description="tokens that every other layer sees")

    @model_validator(mode="after")
    def _heads_fit(self) -> WindowedShape:
        _check_heads(self.hidden, self.heads)
        if self.heads > 3 and self.heads % 2:
            raise ValueError(f"heads is {self.heads}: two of them share keys and values, so give an even number")
        return self


class AnnotatedBase(Section):
    """The base model, trained from scratch on written solutions with calculator annotations (GSM8K)."""

    source: Literal["annotations"] = Field(description="made here, from a benchmark's own annotated solutions")
    benchmark: Word = Field(description="whose pretraining split it learns from")
    shape: WindowedShape
    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="sequences per step")
    adam_lr: Positive = Field(description="peak learning rate of embeddings and norms")
    muon_lr: Positive = Field(description="peak learning rate of weight matrices")
    other_weight: Share = Field(description="loss weight of tokens that are not the model's own; 0: none")
    drill_steps: Annotated[int, Field(ge=0)] = Field(description="optimiser steps on copying drills alone, before")
    changed_numbers: Share = Field(description="share of rows that are shown with other numbers, worked out anew")
    foreign: list[Literal["reward", "train", "development"]] = Field(
        description="splits whose rows it reads with other numbers only: never with their own, nor their answers"
    )
    thoughts: bool = Field(description="whether demonstrations have the words before a call, or the call alone")
    thought_weight: Share = Field(description="loss weight of the words before a call; calls weigh 1")
    judged: Share = Field(description="share of sequences that end in a judge's question and its verdict")
    copying: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of drills: repeat numbers")
    mixed_precision: Literal["no", "bf16"] = Field(description="accelerate's mixed precision in training")

    @model_validator(mode="after")
    def _fits(self) -> AnnotatedBase:
        if self.thoughts and (self.changed_numbers or self.foreign):
            raise ValueError(
                "numbers are changed in calls, not in words: with thoughts, changed_numbers is 0, foreign []"
            )
        return self


BaseModelSection = Annotated[
    EmbeddedBase | AnnotatedBase | ColdStart | Pretrained | EndpointBase, Field(discriminator="source")
]
