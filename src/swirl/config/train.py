"""The section of `train`: step-wise RL and the supervised baseline."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from swirl.config.section import Count, Positive, Section, Share


class Guard(Section):
    """Limits beyond which step-wise RL stops and keeps its last good checkpoint; none of them needs a golden label."""

    max_kl: Positive = Field(
        description="nats per action, mean of the last `check_every` updates; without KL, of actions with an advantage"
    )
    max_step_growth: Positive = Field(description="ratio of steps per trajectory to the start")
    max_malformed: Share = Field(description="share of malformed and cut actions")
    max_reward_drop: Share = Field(description="fall of the mean reward below its best")
    max_unjudged: Share = Field(description="share without a verdict of the last `check_every` updates' actions")


_WHOLE = (
    "step-wise RL draws from the whole softmax, the distribution that its gradient, KL and entropy are of; leave it "
    "out (rollout.top_p and rollout.top_k are for synthesis and evaluation)"
)


def _warm(temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(
            f"{temperature:g} is not above 0: step-wise RL draws from the softmax at this temperature, and greedy "
            "actions of a state would all be the same"
        )
    return temperature


class Swirl(Section):
    """Step-wise RL."""

    refused: ClassVar = {"top_p": _WHOLE, "top_k": _WHOLE}

    updates: Count | None = Field(description="optimiser updates; null: as many as `passes` takes")
    passes: Positive | None = Field(description="visits of a kept state, on average; null: what `updates` come to")
    states: Count = Field(description="states per update, whole trajectories at a time")
    samples: Annotated[int, Field(ge=2)] = Field(description="actions sampled a state (G)")
    temperature: Annotated[float, AfterValidator(_warm)] = Field(description="of the softmax that actions come from")
    lr: Positive = Field(description="peak learning rate of Adam")
    warmup: Annotated[int, Field(ge=0)] = Field(description="updates of linear warm-up; 0: none")
    estimator: Literal["reinforce", "rloo", "grpo"] = Field(description="advantage estimator")
    compared: Literal["all", "kind"] = Field(
        description="whose rewards an action's is compared with: all of its state's, or those of its kind (a search, "
        "an answer), so that how often each kind is chosen earns nothing"
    )
    kl_coefficient: Annotated[float, Field(ge=0)] = Field(description="weight of KL(policy || reference); 0: none")
    kl_gradient: Literal["sequence", "token"] = Field(
        description="of whole actions' KL (sequence), or of each token's as if the earlier ones were given (token)"
    )
    imitation: Annotated[float, Field(ge=0)] = Field(
        description="weight of the log-likelihood of each state's stored action, in reward per nat; 0: none, as in the "
        "paper"
    )
    iterations: Count = Field(description="optimiser steps on each update's actions")
    clip: Positive = Field(description="largest gradient norm")
    cut_actions: Literal["ignore", "penalise"] = Field(
        description="sampled actions cut off at their longest length: out of the gradient, or reward 0; never judged"
    )
    kept_states: Annotated[int, Field(ge=0)] = Field(description="states per update whose draws go to data/draws")
    check_every: Count = Field(
        description="updates between looks at the development questions; the guard goes back to one"
    )
    guard: Guard

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.updates is None) == (self.passes is None):
            both = "both are null" if self.updates is None else f"updates is {self.updates} and passes {self.passes}"
            raise ValueError(
                f"{both}, but one of them is the length of training and the other is null: write updates: 60 and "
                "passes: null, or updates: null and passes: 1.0; what overrides one sets the other to null, too, as "
                "train.swirl.updates=60 with train.swirl.passes=null"
            )
        return self


class Sft(Section):
    """The supervised baseline on the same steps."""

    epochs: Count = Field(description="passes over the steps")
    batch_size: Count = Field(description="trajectories per update")
    lr: Positive = Field(description="peak learning rate of AdamW")
    clip: Positive = Field(description="largest gradient norm")


class Lora(Section):
    """A low-rank adapter that trains in place of the weights; with it off, the model is the reference."""

    rank: Count = Field(description="rank of each layer's update")
    alpha: Count = Field(description="updates are scaled by alpha / rank")
    targets: Annotated[list[str], Field(min_length=1)] = Field(description="names of linear layers; [all-linear]: all")


class Train(Section):
    """The two ways of training on the filtered steps."""

    methods: list[Literal["sft", "swirl"]] = Field(description="what is trained; []: evaluate the base alone")
    packed: bool = Field(description="one comb per trajectory (true) or one sequence per action (false); same numbers")
    token_budget: Count = Field(
        description="tokens that one forward reads at most, if one state with its actions (sft: one trajectory) has "
        "not more"
    )
    gradient_checkpointing: bool = Field(description="compute activations twice to hold fewer in memory; same numbers")
    lora: Lora | None = Field(description="train an adapter and save that alone; null: all weights")
    swirl: Swirl
    sft: Sft
