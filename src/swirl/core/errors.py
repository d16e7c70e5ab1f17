"""Exceptions whose messages say what went wrong and what to do about it."""


class SwirlError(Exception):
    """Base of every error that a user can cause and fix; the CLI prints it without a traceback."""


class ParamsError(SwirlError):
    """params.yaml holds an unknown key, a wrong type or a value out of range."""


class DataError(SwirlError):
    """A data file is missing, broken, or does not hold what its stage expects."""


class GateError(SwirlError):
    """A quality gate found data that must not reach later stages."""


class ToolError(SwirlError):
    """A tool call failed; its message becomes the observation."""


class ModelError(SwirlError):
    """A model or tokenizer cannot do what a stage asks of it."""
