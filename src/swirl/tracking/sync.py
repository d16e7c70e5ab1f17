"""`swirl track sync`: send what was kept while no server could be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.tracking import _reason
from swirl.tracking.mlflow_runs import Store, tracking_uri
from swirl.tracking.operations import Child, File, OneTrace, Operation, Text
from swirl.tracking.outbox import Journal, pending_folder
from swirl.tracking.promotion import promote_if_due


def waiting(layout: Layout) -> list[Path]:
    """The folders of the journals that wait, the oldest first."""
    return sorted(path for path in pending_folder(layout).glob("*") if path.is_dir())


def sync(layout: Layout, say: Callable[[str], None], dry_run: bool = False) -> int:
    """Send every journal that waits, the oldest first, and return how many were sent (`dry_run`: would be sent).

    Raises `SwirlError` when the server cannot be reached: what has arrived is remembered, and the next call resumes
    there. A journal that cannot be read, or whose policy cannot be registered, stays, and after all others are sent a
    `SwirlError` names it.
    """
    stores: dict[str, Store] = {}
    sent, broken = 0, list[str]()
    for folder in waiting(layout):
        if not (folder / "head.json").exists():  # another process has sent it meanwhile, or is creating it
            continue
        try:
            journal = Journal(folder)
        except BlockingIOError:
            say(f"{folder.name}: a stage that runs now has it")
            continue
        except FileNotFoundError:  # another process has just sent it
            continue
        except DataError as error:
            broken.append(str(error))
            continue
        try:
            if not dry_run and (failure := _send(journal, layout, stores)):
                broken.append(failure)
                continue
            sent += 1
            say(f"{'would send' if dry_run else 'sent'} {_described(journal)}")
            for refusal in journal.given_up:
                say(f"  not everything: {refusal}")
        except SwirlError as error:
            raise SwirlError("; ".join([*broken, str(error)])) from None
        finally:
            journal.close()
    if broken:
        raise SwirlError("; ".join(broken))
    return sent


def _send(journal: Journal, layout: Layout, stores: dict[str, Store]) -> str:
    """Send a journal and delete it; or return why it has to stay although all of its operations have arrived."""
    try:
        if journal.experiment not in stores:
            stores[journal.experiment] = Store(layout, {"tracking": {"experiment": journal.experiment}})
        journal.send(stores[journal.experiment])
    except SwirlError:
        raise
    except Exception as error:
        raise SwirlError(
            f"cannot send {journal.name} to {_shown(layout)}: {_reason(error)}. What has arrived is remembered; start "
            "the server, or set MLFLOW_TRACKING_URI to another, and run `swirl track sync` again"
        ) from None
    try:
        promote_if_due(journal, stores[journal.experiment])
    except Exception as error:
        return f"{journal.name} has arrived, but its policy cannot be registered: {_reason(error)}"
    journal.remove()
    return ""


def _shown(layout: Layout) -> str:
    from swirl.config.secrets import without_credentials

    return without_credentials(tracking_uri(layout))


def _described(journal: Journal) -> str:
    when = datetime.fromtimestamp(journal.started).isoformat(" ", "seconds")
    return f"{journal.name} of {when}: {_counts(journal.operations)}"


def _counts(operations: Sequence[Operation]) -> str:
    kinds = Counter(type(operation) for operation in operations)
    counted = {"runs": kinds[Child], "artifacts": kinds[File] + kinds[Text], "traces": kinds[OneTrace]}
    return ", ".join(f"{number} {name}" for name, number in counted.items() if number) or "the pipeline's own run"
