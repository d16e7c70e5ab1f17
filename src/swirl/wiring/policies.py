"""From params and a model's folder to the policy, loaded here or behind a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swirl.config.params import Params
from swirl.config.served import Served
from swirl.core.errors import ModelError, ParamsError
from swirl.core.records import load_json
from swirl.core.types import Trajectory
from swirl.models.loading import configured_context, context_of, load_model, make_deterministic
from swirl.rollout.engine import Policy, roll_out
from swirl.rollout.remote import RemotePolicy, roll_out_remote
from swirl.wiring.chats import policy_chat
from swirl.wiring.servers import SERVER, client_of

AnyPolicy = Policy | RemotePolicy


def load_policy(params: Params, folder: Path, name: str, server: Served | None = None) -> AnyPolicy:
    """The policy of a model's folder: behind `server` or the server that the folder names, otherwise loaded here."""
    remote = remote_policy(params, folder, name, server)
    return remote or load_local_policy(params, folder, name)


def load_local_policy(params: Params, folder: Path, name: str) -> Policy:
    """Load the policy of a model's folder into this process, and make torch deterministic."""
    run = params.runtime
    make_deterministic(run.threads)
    model = load_model(folder, run.device, run.attention, run.dtype)
    return Policy(name, model, policy_chat(params, folder), context_of(model, run.context))


def roll_out_any(policy: AnyPolicy, *arguments: Any, **named: Any) -> list[Trajectory]:
    """Call `roll_out` or `roll_out_remote`, depending on the policy; both take the same arguments."""
    roll = roll_out_remote if isinstance(policy, RemotePolicy) else roll_out
    return roll(policy, *arguments, **named)  # type: ignore[arg-type]


def remote_policy(params: Params, folder: Path, name: str, server: Served | None) -> RemotePolicy | None:
    """The policy behind `server`, or behind the server that the model's folder names; None when there is neither.

    `runtime.context` limits the tokens of a conversation; 0 means the limit in the folder's server.json, or without
    one that of the model's configuration. Raises `ParamsError` for a server of chats with the model's own tool format.
    """
    path, context = folder / SERVER, params.runtime.context
    found = load_json(path) if path.exists() else None
    server = server or (_named(found["server"], path) if found else None)
    if server is None:
        return None
    if params.actions.format == "native" and server.api == "chat":
        raise ParamsError(
            f"{server.url} has api chat, but actions.format is native: states are then sent as tokens; set its api to "
            "completions, or actions.format to tags"
        )
    chat = policy_chat(params, folder)
    if found:
        own = int(found["context"])
        context = min(own, context) if context else own
    else:
        context = configured_context(folder, context)
    return RemotePolicy(name, client_of(server, params.clients), chat, context)


def _named(found: object, path: Path) -> Served:
    try:
        return Served.model_validate(found)
    except ValidationError as error:
        wrong = error.errors()[0]  # its value is not shown: it may hold a key
        place = ".".join(str(part) for part in wrong["loc"])
        raise ModelError(f"{path}: server.{place}: {wrong['msg']}; `dvc repro base_model` writes it anew") from None
