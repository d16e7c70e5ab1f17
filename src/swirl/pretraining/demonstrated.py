"""Demonstrations: written actions played with the real tools, token for token as a rollout would record them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from swirl.core.types import ActionKind, Step, Stop, Trajectory
from swirl.models.chat import Chat
from swirl.pretraining.training import Example
from swirl.rollout.engine import Attempt, observe
from swirl.rollout.reading import Reader, reply_to, tags_of


class NotPlayed(StrEnum):
    """Why written actions do not become a demonstration."""

    TOO_MANY = "more actions than the task's max_steps"
    TOO_LONG = "an action is longer than rollout.max_action_tokens"
    NO_ROOM = "the conversation does not fit into the context"


def play(attempt: Attempt, actions: Sequence[str], chat: Chat, longest: int, context: int) -> Trajectory | NotPlayed:
    """The trajectory of a model that says these actions, each with its end of turn, without log-probabilities.

    Tools are called, and the same limits hold as in a rollout with actions of at most `longest` tokens and
    conversations of at most `context`. Raises `ValueError` for an action that is not one call of the question's tools
    (or, where allowed, a thought), and for a last action that is no answer.
    """
    reader = Reader(chat, tags_of(attempt.tools), attempt.thoughts)
    prompt = chat.prompt(attempt.prompt)
    size, steps = len(prompt), list[Step]()
    for index, text in enumerate(actions):
        ids = chat.reply(text)
        if index == attempt.max_steps:
            return NotPlayed.TOO_MANY
        if len(ids) > longest:
            return NotPlayed.TOO_LONG
        if size + longest > context:
            return NotPlayed.NO_ROOM
        action, last = reader.read(ids), index + 1 == len(actions)
        if action.faulty or (action.kind == ActionKind.ANSWER) != last or reader.upto(ids) != ids:
            calls = ", ".join(f"<{tag}>" for tag in reader.tags)
            wanted = "one <answer>, and nothing after it" if last else f"one call ({calls}), and nothing after it"
            raise ValueError(f"action {index + 1} of {len(actions)}: expected {wanted}, got {text!r}")
        seen = None
        if not last:
            seen = reply_to(action, len(ids)) or observe(attempt.tools[action.kind], action.payload)
        turn = chat.turn(seen.text, closed=True) if seen else ()
        steps.append(Step(index, action, (seen,) if seen else (), ids, (), turn))
        size += len(ids) + len(turn)
    question = attempt.question
    return Trajectory(
        id=f"{question.id}/{attempt.sample}",
        question_id=question.id,
        benchmark=question.benchmark,
        sample=attempt.sample,
        model="demonstration",
        seed=0,
        prompt_ids=prompt,
        steps=tuple(steps),
        stop=Stop.ANSWERED,
        error="",
    )


def example_of(trajectory: Trajectory) -> Example:
    """The whole conversation as one training sequence; only the actions' tokens have weight."""
    ids, weights = list(trajectory.prompt_ids), [0.0] * len(trajectory.prompt_ids)
    for step in trajectory.steps:
        ids += [*step.token_ids, *step.observation_ids]
        weights += [1.0] * len(step.token_ids) + [0.0] * len(step.observation_ids)
    return Example(tuple(ids), tuple(weights))
