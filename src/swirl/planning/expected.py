"""The work that is expected of each stage, in tokens; not the most that it may be, as in `planning.estimates`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil, isnan
from pathlib import Path

from swirl.config.base_model import ColdStart, EndpointBase, Pretrained
from swirl.config.params import Params, evaluated, label_judge_section, reward_asks_judge, task_of
from swirl.config.reward_model import (
    EndpointReward,
    FineTunedReward,
    NoReward,
    PretrainedReward,
    RewardModelSection,
)
from swirl.core.layout import Layout
from swirl.core.types import LOGGED
from swirl.models.native_chat import AnyChat
from swirl.models.prompts import fill
from swirl.planning.earlier import Earlier
from swirl.planning.estimates import packs
from swirl.planning.sizes import UNKNOWN, size_of
from swirl.planning.workload import CHARACTERS_A_TOKEN, kept_trajectories, questions, rl_updates
from swirl.rl.trainer import SAMPLED_AT_ONCE
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.prompts import read_prompts

STEPS, CALCULATIONS = 3.0, 4.3
"""Steps of a trajectory, and of one with a calculator alone: what the embedded default's take, and SmolLM2's on
HotPotQA and GSM8K."""
ACTION = 1 / 3
"""Tokens of an action, as a share of the longest."""
QUESTION, CALCULATED = 40, 12
"""Tokens of a question, and of a calculator's result."""
DIFFERENT = 3 / 8
"""Of the actions that step-wise RL draws in a state, the different ones: SmolLM2's."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens that a stage's process reads and writes, all workers together."""

    read: float = 0
    """Read without a gradient, apart from `judged`."""
    judged: float = 0
    """Read by a judge of trajectories that are made."""
    written: float = 0
    """Drawn one after the other."""
    passes: float = 0
    """Forward passes in which a worker draws them, of one token for each conversation that is going on."""
    taught: float = 0
    """Learnt from as `base_model` and `reward_model` do."""
    tuned: float = 0
    """Learnt from as `train` does."""
    served: float = 0
    """Drawn by a server."""
    asked: float = 0
    """Not tokens: requests to a judge on a server."""

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def times(self, number: float) -> Work:
        """The same work, `number` times."""
        return Work(*(getattr(self, one.name) * number for one in fields(self)))


NOT_KNOWN = Work(read=UNKNOWN)
"""The work of what is done in a way that is not measured."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The expected conversation about a question, in tokens."""

    shared: float
    """Of the instructions, which the conversations of a task share."""
    question: float
    steps: float
    action: float
    seen: float
    """Of a tool's result, with its turn's markup."""

    @property
    def written(self) -> float:
        """The actions' tokens."""
        return self.steps * self.action

    @property
    def given(self) -> float:
        """The other tokens, without those that are shared."""
        return self.question + (self.steps - 1) * self.seen

    @property
    def size(self) -> float:
        """All tokens."""
        return self.shared + self.given + self.written


LOGGED_TALK = Talk(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
"""A logged conversation: how long it is, only the log knows."""
Talks = Sequence[tuple[Talk, float]]
"""Conversations, and how many there are of each kind."""


def count(talks: Talks) -> float:
    """How many conversations there are."""
    return sum(number for _, number in talks)


def total(talks: Talks, name: str) -> float:
    """The sum of a property over all conversations."""
    return float(sum(number * getattr(talk, name) for talk, number in talks))


def mean(talks: Talks) -> Talk:
    """The mean conversation, of at least one."""
    return Talk(*(total(talks, one.name) / count(talks) for one in fields(Talk)))


class Expected:
    """The work of the stages of a run with these settings, in a project that may hold results of an earlier one."""

    def __init__(self, params: Params, root: Path, chat: AnyChat, found: Earlier) -> None:
        self._params, self._root, self._chat, self._found = params, root, chat, found
        self._reward = params.reward_model if reward_asks_judge(params) else None
        self._prompts = read_prompts(params, Layout(root))
        self._turn = len(chat.turn("", closed=True))
        self._asks = len(chat.turn(judge_question(params, Layout(root)), closed=True)) + 1

    def talks(self, split: str, less: int = 0, closed_book: bool = False) -> Talks:
        """The conversations about a split's questions; of each benchmark `less` fewer.

        With `closed_book`, about those that are asked without tools, too, and so.
        """
        params, made = self._params, list[tuple[Talk, float]]()
        for name, planned in questions(params, self._root, split).items():
            if params.download.benchmarks[name].source == "logs":
                made += [] if closed_book else [(LOGGED_TALK, UNKNOWN)]
                continue
            known = self._found.questions.get((name, split))
            number = max((len(known) if known else planned) - less, 0)
            talk = self._talk(name, split)
            if not closed_book:
                made.append((talk, number))
            elif "search" in params.tasks[task_of(name, params.download.benchmarks[name])].tools:
                made.append((Talk(talk.shared, talk.question, 1, talk.action, 0), number))
        return made

    def stages(self) -> dict[str, Work]:
        """The work of each stage that takes a model: none for one that is off."""
        params = self._params
        train = self.talks("train")
        made = {
            "base_model": self._taught(),
            "reward_model": self._judge_taught(),
            "synthesize": self._rolled(train, params.synthesize.samples, params.rollout.block_size, "synthesize"),
            "judge": (self.judged(train, self._reward) + self._graded(train)).times(params.synthesize.samples),
            "train@sft": self._sft() if "sft" in params.train.methods else Work(),
            "train@swirl": self._swirl() if "swirl" in params.train.methods else Work(),
        }
        for name in ("ceiling", "base", "sft", "swirl"):
            made[f"evaluate@{name}"] = self._evaluated(name) if name in evaluated(params) else Work()
        return made

    def _talk(self, name: str, split: str) -> Talk:
        params, found = self._params, self._found
        task = task_of(name, params.download.benchmarks[name])
        settings = params.tasks[task]
        instructions = len(self._chat.prompt(fill(self._prompts.tasks[task], "", settings.max_steps)))
        some = found.questions.get((name, split), [])[:50]
        asked = sum(map(self._chat.count, some)) / len(some) if some else QUESTION
        seen = self._turn + (CALCULATED if settings.tools == ["calculator"] else self._shown(name, split))
        longest = params.rollout.max_action_tokens
        return Talk(instructions, asked, self._steps(task), found.action or ACTION * longest, seen)

    def _steps(self, task: str) -> float:
        """Steps of a trajectory: in proportion, so that the training questions' are what they were."""
        params = self._params

        def usual(name: str) -> float:
            alone = params.tasks[name].tools == ["calculator"]
            return min(CALCULATIONS if alone else STEPS, params.tasks[name].max_steps)

        asked = [
            (usual(of), number)
            for name, number in questions(params, self._root, "train").items()
            if (of := task_of(name, params.download.benchmarks[name])) != LOGGED
        ]
        mean = sum(steps * number for steps, number in asked)
        if self._found.steps is None or not mean:
            return usual(task)
        trained = sum(number for _, number in asked)
        return min(usual(task) * self._found.steps * trained / mean, params.tasks[task].max_steps)

    def _shown(self, name: str, split: str) -> float:
        """Tokens of a search's result: as much as it may show, or all of the passages that it finds if that is less."""
        tools = self._params.tools
        unit = 1 if tools.search_output_unit == "tokens" else CHARACTERS_A_TOKEN
        found = tools.search_results * self._found.passages.get((name, split), float("inf")) / CHARACTERS_A_TOKEN
        return min(tools.search_output_limit / unit, found)

    def _rolled(self, talks: Talks, samples: int, block: int | None, stage: str) -> Work:
        """Rollouts of the policy of a stage; `block`: how many are begun together, None: all that a worker has."""
        params, number = self._params, samples * count(talks)
        if not number:
            return Work()
        servers = {"synthesize": params.synthesize.server}
        servers |= {f"evaluate@{name}": server for name, server in params.evaluate.servers.items()}
        if isinstance(params.base_model, EndpointBase) or servers.get(stage):
            return Work(served=samples * total(talks, "written"))
        if isnan(number):
            return NOT_KNOWN
        share = number / params.runtime.workers
        size = min(block or share, share)
        given, written = (samples * total(talks, name) for name in ("given", "written"))
        passes = written / number * ceil(share / size) * tail(size, params.rollout.in_flight)
        return Work(read=given, written=written, passes=passes)

    def judged(self, talks: Talks, judge: RewardModelSection | None) -> Work:
        """A verdict on every step of one trajectory a question; none without a judge."""
        if judge is None:
            return Work()
        if isinstance(judge, EndpointReward):
            return Work(asked=judge.votes * total(talks, "steps"))
        if not packs(judge):
            return NOT_KNOWN
        read = total(talks, "given") + total(talks, "written") + total(talks, "steps") * self._asks
        return Work(judged=read * self._as_large(judge))

    def _graded(self, talks: Talks) -> Work:
        """A grade of every answer by a server; none where answers are compared as text."""
        judge = self._params.judge
        if judge.outcome != "model":
            return Work()
        elsewhere = judge.grader or isinstance(self._params.reward_model, EndpointReward)
        return Work(asked=count(talks)) if elsewhere else NOT_KNOWN

    def _as_large(self, judge: RewardModelSection) -> float:
        """How many times as large as the policy a judge is; 1 for one that is made of it."""
        params, base = self._params, self._params.base_model
        own = isinstance(judge, FineTunedReward | PretrainedReward) and judge.model != getattr(base, "model", "")
        if not own:
            return 1.0
        return size_of(judge, params, self._root).parameters / size_of(base, params, self._root).parameters

    def _taught(self) -> Work:
        base = self._params.base_model
        if isinstance(base, Pretrained | EndpointBase):
            return Work()
        if not isinstance(base, ColdStart):
            return NOT_KNOWN
        return Work(taught=base.epochs * total(self.talks("pretrain"), "size"))

    def _judge_taught(self) -> Work:
        reward = self._params.reward_model
        if isinstance(reward, PretrainedReward | EndpointReward | NoReward):
            return Work()
        if not isinstance(reward, FineTunedReward):
            return NOT_KNOWN
        besides = [(self._talk(name, "pretrain"), float(count)) for name, count in reward.pretrain.items()]
        asked, block = [*self.talks("reward"), *besides], self._params.rollout.block_size
        learned = [*self.talks("reward", less=reward.heldout), *besides]
        size = (total(learned, "size") + total(learned, "steps") * self._asks) * self._as_large(reward)
        held = self.judged(asked, reward) + self.judged(learned, reward).times(-1)
        made = self._rolled(asked, reward.samples, block, "reward_model")
        return made + held.times(reward.samples) + Work(taught=reward.epochs * reward.samples * size)

    def _looks(self) -> Work:
        """One look at the development questions."""
        asked = self.talks("development")
        return self._rolled(asked, 1, None, "train") + self.judged(asked, self._reward)

    def _kept(self) -> float:
        """How many trajectories of a training question the filter keeps."""
        asked = count(self.talks("train"))
        return kept_trajectories(self._params, self._params.synthesize.samples * asked) / asked if asked else 0.0

    def _sft(self) -> Work:
        learned = Work(tuned=self._kept() * total(self.talks("train"), "size"))
        return (learned + self._looks()).times(self._params.train.sft.epochs)

    def _swirl(self) -> Work:
        params, rl, talks = self._params, self._params.train.swirl, self.talks("train")
        kept = self._kept() * total(talks, "steps")
        if not kept or isnan(kept):
            return Work() if not kept else NOT_KNOWN
        updates, states, action = rl_updates(params, kept), min(rl.states, kept), talks[0][0].action
        trunks = states * total(talks, "size") / total(talks, "steps")
        different = states * min(rl.samples, self._found.different or DIFFERENT * rl.samples)
        teeth = different * action
        sampled = trunks + states * rl.samples * params.rollout.max_action_tokens
        shares = ceil(sampled / (SAMPLED_AT_ONCE * params.train.token_budget) / params.runtime.workers)
        draw = Work(read=trunks, written=teeth, passes=shares * tail(1, 1) * action)
        judge = self._scored(trunks + teeth, different)
        taught = trunks + teeth + (states * action if rl.imitation else 0.0)  # stored actions are teeth, too
        learn = Work(read=taught, tuned=rl.iterations * taught)
        update = draw + judge + learn
        return update.times(updates) + self._looks().times(1 + ceil(updates / rl.check_every))

    def _scored(self, tokens: float, actions: float) -> Work:
        """A reward for each of an update's different actions, which come to so many tokens with their states."""
        judge = self._reward
        if judge is None:
            return Work()
        if isinstance(judge, EndpointReward):
            return Work(asked=judge.votes * actions)
        return Work((tokens + actions * self._asks) * self._as_large(judge)) if packs(judge) else NOT_KNOWN

    def _evaluated(self, model: str) -> Work:
        params, samples = self._params, self._params.evaluate.samples
        talks, block = self.talks("evaluation"), params.evaluate.block_size or None
        made = self._rolled(talks, samples, block, f"evaluate@{model}")
        made += (self.judged(talks, label_judge_section(params)) + self._graded(talks)).times(samples)
        if params.evaluate.without_tools:
            alone = self.talks("evaluation", closed_book=True)
            made += self._rolled(alone, samples, block, f"evaluate@{model}")
            made += (self.judged(alone, label_judge_section(params)) + self._graded(alone)).times(samples)
        return made


def tail(size: float, in_flight: int) -> float:
    """Passes that `size` conversations take, `in_flight` at a time, in units of the mean conversation's.

    The longest of a batch takes about twice as many as the mean, and the batch gets emptier meanwhile.
    """
    return max(1.0, size / in_flight) + 1
