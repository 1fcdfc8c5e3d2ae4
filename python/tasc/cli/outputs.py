"""Outputs of all commands, checked in one place: nothing is overwritten unasked, and no input ever."""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tasc.cli.console import err
from tasc.errors import InputError

Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]

_LOG = re.compile(r"(.+)\.served(?:\.[0-9a-f]{32})?(?:\.\d+)?")  # `tasc.drafting.protocol.served_logs`
_absent: set[Path] = set()  # outputs of the present command that did not exist when it began


def free_name(path: Path) -> Path:
    """Return the path to write at: a new one beside it where another command has written the file meanwhile."""
    if Path(os.path.realpath(path)) not in _absent or not path.exists():
        return path
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
    free = next(one for one in names if not one.exists())
    err.print(f"another command has written {path} meanwhile", highlight=False, soft_wrap=True)
    return free


class Commands(typer.Typer):
    """Group of commands whose outputs are checked before they run.

    An output is an option with `writable=True`; with `file_okay=False` too, it is a folder. Commands that write files
    get the option `--force`.
    """

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Return a decorator that adds a function as a command."""
        add = super().command(name, **options)

        def decorate(function: Any) -> Any:
            add(_guarded(function))
            return function

        return decorate


def output_options(function: Any) -> dict[str, Any]:
    """Return the options of a command that name outputs, by parameter."""
    hints = get_type_hints(function, include_extras=True)
    options = {name: getattr(hint, "__metadata__", [None])[0] for name, hint in hints.items()}
    return {name: option for name, option in options.items() if getattr(option, "writable", False)}


def _guarded(function: Any) -> Any:
    """Return a command that checks its outputs first."""
    options = output_options(function)
    if not options:
        return function
    folders = {_flag(name, option) for name, option in options.items() if not option.file_okay}
    signature = inspect.signature(function)

    @wraps(function)
    def command(*, force: bool = False, **given: Any) -> Any:
        outputs = {_flag(name, option): given[name] for name, option in options.items() if given[name] is not None}
        inputs = [path for name, value in given.items() if name not in options for path in _paths(value)]
        check_outputs(outputs, inputs, folders=folders, force=force)
        _absent.update(Path(os.path.realpath(path)) for path in outputs.values() if not path.exists())
        try:
            with made_folders([path.absolute().parent for path in outputs.values()]):
                return function(**given)
        finally:
            _absent.clear()

    if len(folders) < len(options):
        added = inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Force)
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
        command.__signature__ = signature.replace(parameters=[*own, added])  # type: ignore[attr-defined]
        command.__annotations__ = {**function.__annotations__, "force": Force}
    return command


def _flag(name: str, option: Any) -> str:
    """Return the shortest flag of an option."""
    flags = [one for one in (option.default, *(option.param_decls or ())) if isinstance(one, str)]
    return min(flags, key=len, default=f"--{name.replace('_', '-')}")


def _paths(value: Any) -> list[Path]:
    """Return the paths among the values of a parameter: texts too, because models and tokenizers are texts."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [Path(one) for one in values if isinstance(one, (str, Path))]


def check_outputs(
    outputs: Mapping[str, Path], inputs: list[Path], *, folders: set[str] | frozenset[str] = frozenset(), force: bool
) -> None:
    """Check the outputs of a command before it does anything.

    Args:
        outputs: Paths by the flag that names them.
        inputs: Paths that the command may read; those that do not exist are passed over.
        folders: Flags whose output is a folder.
        force: Whether files that exist may be replaced.

    Raises:
        InputError: An output is an input (by another spelling or link too) or another output, has the name of an
            index's log, is no file, or exists.
    """
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if str(path) == "-":
            raise InputError(f"{option} - would be standard output, which is for messages; name a file")
        place = Path(os.path.realpath(path))
        if any(_is_same(place, one) for one in inputs):
            raise InputError(f"{option} {path} is one of the inputs of this command; name another file")
        if (other := seen.setdefault(place, option)) != option:
            raise InputError(f"{other} and {option} name the same file, {path}; give each a file of its own")
        if (log := _LOG.fullmatch(place.name)) and place.with_name(log[1]).is_file():
            raise InputError(f"{option} {path} is the log of served rows of {log[1]}; name another file")
        if option in folders:
            _check_folder(path)
        else:
            check_writable(path)
            if place.exists() and not force:
                raise InputError(f"{option} {path} exists; name another file, or add --force to replace it")


def _is_same(path: Path, other: Path) -> bool:
    """Return whether two paths name one file that exists, by another link too."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def check_writable(*files: Path | None) -> None:
    """Check that files can be written, in folders that exist or can be made.

    Raises:
        InputError: A path is a folder, a pipe or a device, or its folder cannot be written to.
    """
    for file in files:
        if file is None:
            continue
        if file.is_dir():
            raise InputError(f"cannot write {file}: it is a folder; name a file")
        if file.exists() and not file.is_file():
            raise InputError(f"cannot write {file}: it is a pipe or a device; name a file")
        _check_folder(file)


def _check_folder(path: Path) -> None:
    """Check that the folder of a path can be written to, or made."""
    folder = next(one for one in Path(os.path.realpath(path)).parents if one.exists())
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is a file; name another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: the folder {folder} is read-only; name another folder")


@contextmanager
def made_folders(folders: list[Path]) -> Iterator[None]:
    """Make the folders that are missing; if the block raises, those that are still empty are removed."""
    missing = {one for folder in folders for one in (folder, *folder.parents) if not one.exists()}
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in sorted(missing, key=lambda one: -len(one.parts)):
            with suppress(OSError):
                folder.rmdir()
        raise
