"""What is said where there is no Ray, or no cluster; no cluster is started here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from swirl.config.execution import Execution
from swirl.core.errors import ParamsError
from swirl.execution import ray_cluster
from swirl.execution.engines import opened
from tests.scripted_blocks import Scripted
from tests.servers import held_port


def ray_at(address: str) -> Execution:
    return Execution(engine="ray", address=address, workers=2, gpus_per_worker=0.0)


def test_without_ray_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = r"^execution.engine is ray, which needs the extra ray: pip install -c constraints.txt -e '\.\[ray\]'$"
    with pytest.raises(ParamsError, match=said), opened(ray_at("auto"), Scripted(tmp_path)):
        pass


@pytest.mark.parametrize("by_environment", [True, False])
def test_where_no_cluster_answers_the_address_is_named(
    by_environment: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    with held_port() as port:
        address = f"127.0.0.1:{port}"
        monkeypatch.setenv("RAY_ADDRESS", address if by_environment else "no-such-host:1")
        settings = ray_at("auto" if by_environment else address)
        said = f"no cluster of Ray answers at {address}"
        with pytest.raises(ParamsError, match=said), opened(settings, Scripted(tmp_path)):
            pass


def test_ray_s_token_is_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray/auth_token"
    ray_cluster.own_token()
    made = token.read_text()
    assert re.fullmatch("[0-9a-f]{64}", made)
    token.chmod(0o644)  # as Ray leaves it
    ray_cluster.own_token()
    assert token.read_text() == made
    assert [(path.name, path.stat().st_mode & 0o777) for path in token.parent.iterdir()] == [("auth_token", 0o600)]
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    ray_cluster.own_token()
    assert not token.exists()
