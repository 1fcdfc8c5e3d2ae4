"""Embedding surgery: extends a model so that it can generate the new tokens of a plan.

Old embedding rows stay unchanged, bit for bit. A new row is initialised as a mean of its constituents' rows. The result
is an ordinary checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from tasc._core import MergePlan
from tasc.checks import whole_number, wrong
from tasc.data import TaskTokenizer
from tasc.data.tokenizer import PLAN_FILE, load_tokenizer
from tasc.errors import InputError, import_optional
from tasc.files import new_folder, read_json, write_json
from tasc.models import load_weights
from tasc.portable import make_portable
from tasc.vocab.vocabulary import extend_tokenizer

logger = logging.getLogger(__name__)

SECOND_TABLES = ("embed_tokens_per_layer",)
"""Names of further embedding tables by token. Models with such a table cannot be extended."""

PROBES = ("Hello, it's 12345!", "  two spaces\n\n\ta tab", "naïve 東京 🙂", "")
"""Texts with which two tokenizers are compared."""


def extend_model(model: Any, plan: MergePlan, *, pad_to_multiple: int = 1) -> Any:
    """Adds embedding rows for the new tokens of a plan to a model, in place.

    New token k has the row `plan.base_vocab_size + k`. Where matrices are padded beyond the tokenizer's ids, the
    padding is filled. Matrices never shrink. If the embeddings are tied, a row is the mean of its constituents' rows.
    If they are untied, the mean is weighted, and the coefficients halve from one constituent to the next: the input row
    favours the last constituent, after which the text continues; the output row (and bias) favours the first, which
    has to be predicted.

    Args:
        model: A transformers causal language model.
        plan: Plan learned with this model's tokenizer.
        pad_to_multiple: Matrices that have to grow get a multiple of this many rows. Rows without a token are then the
            mean of the old rows, whose logit is never above all others.

    Returns:
        `model`.

    Raises:
        InputError: The model has fewer rows than the plan's tokenizer has ids, or a second embedding table; or
            `pad_to_multiple` is below 1.

    Examples:
        >>> model = AutoModelForCausalLM.from_pretrained("path/to/model")  # doctest: +SKIP
        >>> extend_model(model, MergePlan.open("task.plan")).config.vocab_size  # doctest: +SKIP
        49652
    """
    pad_to_multiple = whole_number("pad_to_multiple", pad_to_multiple, 1)
    if not isinstance(plan, MergePlan):
        raise wrong("plan", plan, "a MergePlan, as MergePlan.open opens it")
    if not hasattr(model, "get_input_embeddings"):
        raise wrong("model", model, "a causal language model, as AutoModelForCausalLM.from_pretrained loads it")
    _check_tables(model, plan)
    tied = is_tied(model)
    before = model.get_input_embeddings().weight.shape[0]
    end = plan.base_vocab_size + len(plan)
    if end > before:
        model.resize_token_embeddings(-(-end // pad_to_multiple) * pad_to_multiple, mean_resizing=False)
    outputs = model.get_output_embeddings()
    bias = getattr(outputs, "bias", None)
    if tied:
        tables = [(model.get_input_embeddings().weight, 1.0), (bias, 1.0)]
    else:
        tables = [(model.get_input_embeddings().weight, 2.0), (getattr(outputs, "weight", None), 0.5), (bias, 0.5)]
    for table, ratio in tables:
        if table is not None:
            _fill(table, plan, ratio, before)
    return model


def is_tied(model: Any) -> bool:
    """Return whether the output embeddings of a model are its input embeddings."""
    outputs = model.get_output_embeddings()
    return outputs is not None and outputs.weight is model.get_input_embeddings().weight


def _check_tables(model: Any, plan: MergePlan) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < plan.base_vocab_size:
        raise InputError(
            f"the model has embeddings for {rows} tokens, the plan's tokenizer {plan.tokenizer} has "
            f"{plan.base_vocab_size}; give the model of that tokenizer"
        )
    for name, _ in model.named_modules():
        if name.rpartition(".")[2] in SECOND_TABLES:
            raise InputError(f"the model has a second embedding table, {name}; such models cannot be extended yet")


def _fill(table: Any, plan: MergePlan, ratio: float, before: int) -> None:
    """Set the rows of new tokens, and the rows without a token that `pad_to_multiple` added.

    Args:
        table: (V, D) matrix or (V,) bias.
        plan: New tokens.
        ratio: Coefficient of a constituent, divided by the coefficient of the one before it.
        before: Number of rows before the table grew.
    """
    torch = import_optional("torch", "hf")
    base, end = plan.base_vocab_size, plan.base_vocab_size + len(plan)
    with torch.no_grad():
        for k in range(len(plan)):
            rows = table[torch.from_numpy(plan.expansion(k).astype("int64")).to(table.device)].float()
            mean = ratio ** torch.arange(len(rows), dtype=torch.float64)
            table[base + k] = torch.tensordot((mean / mean.sum()).to(rows), rows, dims=1).to(table.dtype)
        if (unused := max(end, before)) < len(table):
            table[unused:] = table[:before].float().mean(0).to(table.dtype)


def extend_checkpoint(
    model: str | Path, plan: MergePlan, out_dir: str | Path, *, dtype: Any = None, pad_to_multiple: int = 1
) -> Path:
    """Writes a checkpoint that can generate the new tokens of a plan, for fine-tuning.

    `AutoModelForCausalLM` and `AutoTokenizer` load the folder, chat template and generation settings included. The
    folder also holds the plan as `merge_plan.tasc`, with which `tasc.data.load_tokenizer` segments outputs. The folder
    appears under its name only when it is complete.

    Args:
        model: Folder of a checkpoint with its tokenizer, or a name on the model hub.
        plan: Plan learned with that tokenizer (`learn_vocabulary`).
        out_dir: Folder to write. It must be empty or not exist.
        dtype: Type of the model weights, a torch dtype or its name; by default the type of the checkpoint.
        pad_to_multiple: See `extend_model`.

    Returns:
        `out_dir`.

    Raises:
        TokenizerMismatchError: The plan was learned with another tokenizer.
        InputError: The tokenizer or model cannot be read or extended (the message names the reason), or `out_dir` is
            not empty.
        MissingExtraError: torch or transformers is not installed.
        OSError: The folder cannot be written.

    Examples:
        >>> plan = MergePlan.open("task.plan")  # doctest: +SKIP
        >>> extend_checkpoint("path/to/model", plan, "extended")  # doctest: +SKIP
        PosixPath('extended')
    """
    extended = extend_tokenizer(model, plan)
    transformers = import_optional("transformers", "hf")
    with new_folder(out_dir) as folder:
        loaded = load_weights(transformers.AutoModelForCausalLM, model, dtype=dtype or "auto")
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        _add_missing_rows(loaded, tokenizer)
        extend_model(loaded, plan, pad_to_multiple=pad_to_multiple).save_pretrained(folder)
        if (settings := Path(model) / "generation_config.json").is_file():  # unchanged: transformers would add defaults
            shutil.copyfile(settings, folder / settings.name)
        _save_tokenizer(tokenizer, extended, folder)
        make_portable(folder)
    return Path(out_dir)


def _add_missing_rows(model: Any, tokenizer: Any) -> None:
    """Add rows for the tokenizer's added tokens beyond the model's matrices, such as the image token of Gemma 3 1B.

    Such a row is the mean of the others, whose logit is never above all others.
    """
    torch = import_optional("torch", "hf")
    before, missing = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if not all(token in tokenizer.added_tokens_decoder for token in range(before, missing)) or missing <= before:
        return
    model.resize_token_embeddings(missing, mean_resizing=False)
    outputs = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight, getattr(outputs, "weight", None), getattr(outputs, "bias", None)]
    with torch.no_grad():
        for table in tables:
            if table is not None:
                table[before:] = table[:before].float().mean(0).to(table.dtype)


def _save_tokenizer(original: Any, extended: TaskTokenizer, folder: Path) -> None:
    """Write the original settings and chat template, the extended vocabulary and the plan, and read all of it back."""
    assert extended.plan is not None
    original.save_pretrained(folder)
    extended.tokenizer.save(str(folder / "tokenizer.json"))
    extended.plan.keep(range(len(extended.plan)), folder / PLAN_FILE)
    if not _is_loaded_as(
        extended, folder
    ):  # some transformers classes build a tokenizer of their own instead of reading the file
        _set_class(folder / "tokenizer_config.json", "PreTrainedTokenizerFast")
        if not _is_loaded_as(extended, folder):
            raise InputError(
                f"the tokenizer that transformers loads for {extended.name} differs from its tokenizer.json, for "
                "example by an added token; load it with AutoTokenizer, save it with save_pretrained, and start from "
                "that folder"
            )
        loaded = _auto_tokenizer(folder)
        if any(original(text)["input_ids"] != loaded(text)["input_ids"] for text in PROBES):
            logger.warning(
                "transformers and tokenizer.json encode differently with %s; the extended checkpoint follows the file",
                extended.name,
            )


def _is_loaded_as(extended: TaskTokenizer, folder: Path) -> bool:
    return load_tokenizer(_auto_tokenizer(folder)).fingerprint == extended.fingerprint


def _auto_tokenizer(folder: Path) -> Any:
    return import_optional("transformers", "hf").AutoTokenizer.from_pretrained(folder)


def _set_class(config: Path, name: str) -> None:
    write_json(config, {**read_json(config), "tokenizer_class": name}, indent=2)
