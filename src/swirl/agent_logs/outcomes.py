"""What a finished tree of requests comes to: its trajectories, what is left out and why, rewritten histories."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from swirl.agent_logs.canonical import hash_of
from swirl.agent_logs.exchanges import Fault, NoAction
from swirl.agent_logs.request_tree import Is, RequestTree

_NO_SESSION = hash_of("")
_IN_HISTORY = (NoAction.EXAMPLE, NoAction.WEIGHT, NoAction.CLIENT)
"""What an assistant's turn is by itself, whether or not its own request was logged."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Decided over all nodes, so that the order of the log does not count."""

    ends: list[int]
    """The last action of each trajectory."""
    usable: bytearray
    """By node, whether it is an action that is used."""
    lost: list[tuple[int, str]]
    """Nodes that are left out, with the reason: every action that is, and a fault itself where no action is lost."""
    segments: dict[int, int]
    """A node of a history that was sent otherwise -> the node of the one before that says the same."""
    parted: set[int]
    """The first node of each such history."""


def decide(tree: RequestTree) -> Outcomes:
    """The outcomes of a tree to which nothing will be added."""
    cut = _cuts(tree)
    actions = {_in_session(tree, node): node for node in range(len(tree) - 1, -1, -1) if tree.flags[node] & Is.ACTION}
    usable, lost, segments = bytearray(len(tree)), list[tuple[int, str]](), dict[int, int]()
    costly: set[int] = set()
    inside = bytearray(len(tree))
    for node in range(len(tree)):
        flags, parent = tree.flags[node], tree.parent[node]
        inside[node] = parent >= 0 and inside[parent]
        reason = tree.no_action.get(node)
        if flags & Is.MOVED or not flags & Is.ASSISTANT:
            continue
        if flags & Is.ACTION:
            if node in cut:
                costly.add(cut[node][1])
                lost.append((node, cut[node][0]))
            elif reason:
                lost.append((node, reason))
            else:
                usable[node] = 1
        elif node not in cut:
            origin = actions.get(_in_session(tree, node))
            if reason in _IN_HISTORY:
                lost.append((node, str(reason)))
            elif origin is None:
                lost.append((node, NoAction.ECHO))
            elif not inside[node] and not (flags & Is.SHORT and tree.session[node] == _NO_SESSION):
                inside[node] = 1
                segments[node] = origin
    lost += [(top, fault) for fault, top in sorted({*cut.values()}) if top not in costly]
    first = {_parting(tree, node, origin) for node, origin in segments.items()}
    summaries = _summaries(tree, first)
    return Outcomes(_ends(tree, usable), usable, lost, segments | summaries, first | summaries.keys())


def first_turns(tree: RequestTree) -> array[int]:
    """By node, the first real user turn on the path to it; the first node of the path where there is none."""
    first = array("i")
    for node in range(len(tree)):
        above = first[tree.parent[node]] if tree.parent[node] >= 0 else node
        begins = tree.flags[node] & Is.USER and not tree.flags[above] & Is.USER
        first.append(node if begins else above)
    return first


def _cuts(tree: RequestTree) -> dict[int, tuple[Fault, int]]:
    """Each node at or below a fault -> the fault and its node."""
    cut: dict[int, tuple[Fault, int]] = {}
    for node in range(len(tree)):
        flags = tree.flags[node]
        if (above := cut.get(tree.parent[node])) is not None:
            cut[node] = above
        elif node in tree.faults:
            cut[node] = tree.faults[node], node
        elif flags & Is.GLUED and not flags & Is.SPLIT:
            cut[node] = Fault.GLUED, node
    return cut


def _in_session(tree: RequestTree, node: int) -> int:
    """A number for what a node says within its session."""
    return hash((tree.session[node], tree.message[node]))


def _parting(tree: RequestTree, node: int, other: int) -> int:
    """The first node on the path to `node` that is not on the path to `other`; `node` where all of them are."""
    shared = set(tree.path(other))
    return next((one for one in tree.path(node) if one not in shared), node)


def _summaries(tree: RequestTree, known: set[int]) -> dict[int, int]:
    """Histories that begin with a summary, in a session with an earlier one under the same first system turn."""
    found: dict[int, int] = {}
    first: dict[tuple[int, int], int] = {}
    for node in range(len(tree)):
        path = tree.path(node) if tree.flags[node] & (Is.USER | Is.SUMMARY) else []
        if not path or not all(tree.flags[above] & Is.SYSTEM for above in path[:-1]):
            continue
        system = tree.message[path[0]] if len(path) > 1 else 0
        earlier = first.setdefault((tree.session[node], system), node)
        rewritten = tree.flags[node] & Is.SUMMARY and tree.session[node] != _NO_SESSION
        if earlier != node and rewritten and not any(one in known or one in found for one in path):
            found[node] = earlier
    return found


def _ends(tree: RequestTree, usable: bytearray) -> list[int]:
    """The usable actions with no usable action below them."""
    below, ends = bytearray(len(tree)), list[int]()
    for node in range(len(tree) - 1, -1, -1):
        if usable[node] and not below[node]:
            ends.append(node)
        if tree.parent[node] >= 0 and (usable[node] or below[node]):
            below[tree.parent[node]] = 1
    return ends[::-1]
