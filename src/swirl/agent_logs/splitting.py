"""Conversations dealt out to splits by groups: what belongs to one group is never in two splits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from swirl.core.seeds import generator


def split_groups(groups: Sequence[Hashable], wanted: Mapping[str, int | None], seed: int) -> list[str]:
    """The split of each conversation, whose group is given; empty where none has room for its group.

    `wanted` is how many conversations each split takes at most, None for all that the others leave, in the order in
    which they are filled. Groups come in an order drawn from `seed`; each split takes those that fit whole.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    waiting = list(members.values())
    generator(seed, "groups").shuffle(waiting)
    found = [""] * len(groups)
    for split, most in sorted(wanted.items(), key=lambda pair: pair[1] is None):  # stable: `all` takes what is left
        room, left = len(groups) if most is None else most, list[list[int]]()
        for together in waiting:
            if len(together) > room:
                left.append(together)
                continue
            room -= len(together)
            for number in together:
                found[number] = split
        waiting = left
    return found
