"""Whether torch can use a device here, said before anything is loaded."""

from __future__ import annotations

from swirl.core.errors import ParamsError
from swirl.core.flights import out_of_memory


def check_device(device: str) -> None:
    """Raise `ParamsError` with what to set where torch cannot use this device: none is built in, or none is there."""
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, ImportError, RuntimeError) as error:  # by the kind of device
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise ParamsError(
            f"runtime.device is {device}, which torch {torch.__version__} cannot use here ({said}); set it to cpu, or "
            "install a build of torch for that device: `make TORCH=cuda venv` for cuda"
        ) from error
