"""Every error that genxai raises on purpose: each a type, each with a message that says what to do."""

# ruff: noqa: N818 - the names say what happened; a suffix on each would add nothing

from __future__ import annotations


class GenxaiWarning(UserWarning):
    """Something that does not stop the work but that its reader should know."""


class GenxaiError(Exception):
    """Base of all errors that genxai raises on purpose. ``exit_code`` is what the command line ends with."""

    exit_code = 1


def one_line(error: BaseException) -> str:
    """Return an error's type and text on one line, for a message that quotes it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# -- names and plugins: the seven ways in which a component cannot be had --------------------------------------


class RegistryError(GenxaiError):
    """A component cannot be had by its name."""

    exit_code = 3


class UnknownComponent(RegistryError):
    """No installed plugin and no catalogue entry has this name."""

    exit_code = 2


class NotInstalled(RegistryError):
    """The catalogue knows this name; its distribution is not installed."""


class PluginFailed(RegistryError):
    """The plugin that provides this name could not be loaded; the cause is chained."""


class TargetImportFailed(RegistryError):
    """The component is registered, but importing what it points at failed; the cause is chained."""


class AmbiguousProvider(RegistryError):
    """Two distributions provide the same name."""

    exit_code = 2


class Unavailable(RegistryError):
    """The component was written for another plugin API, or its plugin is switched off."""


class BadParameter(GenxaiError):
    """A constructor or call parameter is unknown, missing, or of the wrong type."""

    exit_code = 2


class BadComponent(GenxaiError):
    """A plugin declares a component whose kind, name, target or summary is malformed."""


# -- models and inputs ------------------------------------------------------------------------------------------


class MissingCapability(GenxaiError):
    """A method needs something of a model that this model does not offer."""

    exit_code = 2


class InputError(GenxaiError):
    """An argument has the wrong type, shape, value range, or holds values that are not finite."""

    exit_code = 2


class TargetError(InputError):
    """The class index to explain is missing, or outside the model's outputs."""


class ExplainerError(GenxaiError):
    """An explainer returned something that its contract forbids (shape, type, NaN)."""


# -- work -------------------------------------------------------------------------------------------------------


class StorageError(GenxaiError):
    """A file is missing, damaged, of an unknown format, or not safe to read."""

    exit_code = 2


class PipelineError(GenxaiError):
    """A pipeline file is malformed. The message is one line: file, place, remedy."""

    exit_code = 2


class StepFailed(GenxaiError):
    """A pipeline step raised while it ran; the cause is chained."""


class TrainingDiverged(GenxaiError):
    """A loss or gradient stopped being finite. Nothing was stepped; the last good checkpoint is kept."""

    exit_code = 4


class Interrupted(GenxaiError):
    """Ctrl-C: what was done is saved, and the message says how to go on."""

    exit_code = 130
