"""What a setting says of itself, once: the command line, the TOML file and the reference are made of it."""

from dataclasses import dataclass

__all__ = ["Option"]


@dataclass(frozen=True, slots=True)
class Option:
    """Stands in the annotation of a settings field that is an option of the command line.

    ```python
    every: Annotated[int, Option("Renew the quality map every so many frames.", min=1)] = 10
    ```

    Args:
        help: The sentence for users.
        name: What it is called on the command line, where that is not the field's own name.
        min: The least value that the command line takes.
        max: The greatest one.
        metavar: What stands for the value in the help, such as `FILE`.
    """

    help: str
    name: str = ""
    min: float | None = None
    max: float | None = None
    metavar: str | None = None
