"""A logged conversation as a `Trajectory` in our tags, token by token, as if it had been rolled out."""

from __future__ import annotations

import dataclasses

from swirl.agent_logs.conversation import LoggedConversation, Message, Role, StepKind
from swirl.agent_logs.tagged import turns_of
from swirl.core.types import Action, ActionKind, Observation, Step, Stop, Trajectory
from swirl.models.chat import Chat
from swirl.rollout.reading import THINK_REPLY
from swirl.tools.actions import kind_of_call


def trajectory_of(conversation: LoggedConversation, chat: Chat, benchmark: str) -> Trajectory:
    """The trajectory; its question is `BENCHMARK/ID`, by the conversation's id, and `benchmark` names the logs.

    What lies between two actions, turns of the assistant that are state only included, is `observation_ids` of the
    first, so every state is the prefix that was sent. Actions were not sampled here: there are no log-probabilities.
    A log that ends without an answer stops as `STEP_LIMIT`.
    """
    prompt: tuple[int, ...] = ()
    between: list[int] = []
    steps: list[Step] = []
    for number, turn in enumerate(turns_of(conversation)):
        if turn.message in conversation.actions:
            if steps:
                steps[-1] = dataclasses.replace(steps[-1], observation_ids=tuple(between))
            else:
                prompt = tuple(between)
            steps.append(_step(conversation, turn.message, len(steps), chat.reply(turn.text), turn.text))
            between = []
        elif turn.message >= 0:
            between += chat.reply(turn.text)
        else:
            between += chat.turn(turn.text, closed=True) if number else chat.prompt(turn.text)
    answered = steps[-1].action.kind == ActionKind.ANSWER
    return Trajectory(
        id=f"{benchmark}/{conversation.id}/0",
        question_id=f"{benchmark}/{conversation.id}",
        benchmark=benchmark,
        sample=0,
        model=conversation.messages[conversation.actions[-1]].model,
        seed=0,
        prompt_ids=prompt,
        steps=tuple(steps),
        stop=Stop.ANSWERED if answered else Stop.STEP_LIMIT,
        error="",
        retokenised=True,
    )


def shortened(trajectory: Trajectory, context: int, longest: int) -> tuple[Trajectory | None, int]:
    """The trajectory up to the first state that the model has no room for, and how many steps are left out.

    A state and its action, or one of `longest` tokens, must fit into `context` tokens. None when no step is left.
    """
    read = len(trajectory.prompt_ids)
    for number, step in enumerate(trajectory.steps):
        if read + max(longest, len(step.token_ids)) > context:
            left, lost = trajectory.steps[:number], len(trajectory.steps) - number
            if not left:
                return None, lost
            last = dataclasses.replace(left[-1], observation_ids=())
            return dataclasses.replace(trajectory, steps=(*left[:-1], last), stop=Stop.CONTEXT_FULL), lost
        read += len(step.token_ids) + len(step.observation_ids)
    return trajectory, 0


def _step(conversation: LoggedConversation, index: int, number: int, ids: tuple[int, ...], text: str) -> Step:
    """The step of the action at `index`, without what comes after its observations."""
    seen = _observations(conversation, index)
    return Step(number, _action(conversation, index, text), seen, ids, (), ())


def _action(conversation: LoggedConversation, index: int, text: str) -> Action:
    kind, message = conversation.kind(index), conversation.messages[index]
    if kind is StepKind.ANSWER:
        return Action(ActionKind.ANSWER, text, message.text)
    if kind is StepKind.TEXT:
        return Action(ActionKind.THINK, text, "")
    if conversation.bad(index):
        return Action(ActionKind.MALFORMED, text, "")
    return Action(kind_of_call(message.calls[0].name), text, message.calls[0].arguments)


def _observations(conversation: LoggedConversation, index: int) -> tuple[Observation, ...]:
    """The results of a turn's calls, or what is said after a turn without any."""
    message, follows = conversation.messages[index], conversation.messages[index + 1 :]
    if message.calls:
        results = [one for one in follows[: len(message.calls)] if one.role is Role.TOOL]
        if conversation.bad(index):
            return tuple(Observation(one.text, True) for one in results)
        paired = zip(message.calls, results, strict=False)
        return tuple(Observation(one.text, one.error, kind_of_call(call.name), call.arguments) for call, one in paired)
    return (Observation(_said(follows), False),) if follows else ()


def _said(messages: tuple[Message, ...]) -> str:
    """What the user says up to the next turn of the assistant."""
    said = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            break
        said.append(message.text)
    return "\n\n".join(filter(None, said)) or THINK_REPLY
