"""charrnn trains character-level RNNs on any text and generates more text like it.

    import charrnn
    model = charrnn.train(open("corpus.txt", encoding="utf-8", newline="").read())
    print("".join(model.sample(500, temp=0.8)))

``train`` and ``load`` return a ``Model``, which has ``sample`` and ``nll``. ``Config`` lists the
options of a run.
"""

from typing import TYPE_CHECKING, Any

from charrnn.version import __version__

__all__ = ["Config", "Model", "__version__", "load", "train"]

if TYPE_CHECKING:
    from charrnn.config import Config
    from charrnn.model import Model, load
    from charrnn.trainer import train


def __getattr__(name: str) -> Any:
    # imported late: the command line starts fast, and sets the threads before NumPy is imported
    if name == "Config":
        from charrnn.config import Config

        return Config
    if name == "train":
        from charrnn.trainer import train

        return train
    if name in __all__:
        from charrnn import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]
