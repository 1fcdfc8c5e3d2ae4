"""Extends a model by the rows of a plan's new tokens.

Old embedding rows stay as they are, bit for bit; new ones begin as a mean of what they stand for. The result is an
ordinary checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from tasc._core import MergePlan
from tasc.data import TaskTokenizer
from tasc.data.tokenizer import PLAN_FILE, load_tokenizer
from tasc.errors import InputError, import_optional
from tasc.files import new_folder
from tasc.vocab.vocabulary import extend_tokenizer

logger = logging.getLogger(__name__)

SECOND_TABLES = ("embed_tokens_per_layer",)
"""Further embeddings by token, of models that are not extended."""

PROBES = ("Hello, it's 12345!", "  two spaces\n\n\ta tab", "naïve 東京 🙂", "")
"""Texts by which two tokenizers are compared."""


def extend_model(model: Any, plan: MergePlan, *, pad_to_multiple: int = 1) -> Any:
    """Gives a model rows for the new tokens of a plan, in place.

    New token k has the row `plan.base_vocab_size + k`. Matrices that are padded beyond the tokenizer's ids have that
    padding filled and never shrink. With tied matrices a row is the mean of its constituents' rows. With untied ones
    the input row is weighted to the last constituent, behind which the text goes on, and the output row (and bias) to
    the first, which is the one to predict; the weights halve from each to the next.

    Args:
        model: A transformers causal language model.
        plan: Learnt with this model's tokenizer.
        pad_to_multiple: Where matrices have to grow, to a multiple of this. Rows without a token are then the mean of
            the old rows, whose logit is never above all others.

    Returns:
        The same model.

    Raises:
        InputError: A model with fewer rows than the plan's tokenizer has ids, or with a second table of embeddings.

    Examples:
        >>> model = AutoModelForCausalLM.from_pretrained("path/to/model")  # doctest: +SKIP
        >>> extend_model(model, MergePlan.open("task.plan")).config.vocab_size  # doctest: +SKIP
        49652
    """
    if pad_to_multiple < 1:
        raise InputError(f"pad_to_multiple is {pad_to_multiple}, it must be at least 1")
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
    """Whether a model's output matrix is its input matrix."""
    outputs = model.get_output_embeddings()
    return outputs is not None and outputs.weight is model.get_input_embeddings().weight


def _check_tables(model: Any, plan: MergePlan) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < plan.base_vocab_size:
        raise InputError(
            f"the model has embeddings for {rows} tokens, the plan's tokenizer {plan.tokenizer} has "
            f"{plan.base_vocab_size}; give the model that belongs to it"
        )
    for name, _ in model.named_modules():
        if name.rpartition(".")[2] in SECOND_TABLES:
            raise InputError(f"the model looks tokens up in a second table, {name}; such models cannot be extended yet")


def _fill(table: Any, plan: MergePlan, ratio: float, before: int) -> None:
    """Sets the rows of new tokens, and those that are there only because of `pad_to_multiple`.

    Args:
        table: (V, D) matrix or (V,) bias.
        plan: The new tokens.
        ratio: Weight of a constituent over that of the one before it.
        before: Rows that the table had before it grew.
    """
    torch = import_optional("torch", "hf")
    base, end = plan.base_vocab_size, plan.base_vocab_size + len(plan)
    with torch.no_grad():
        for k in range(len(plan)):
            rows = table[torch.from_numpy(plan.expansion(k).astype("int64")).to(table.device)].float()
            weights = ratio ** torch.arange(len(rows), dtype=torch.float64)
            weights = (weights / weights.sum()).to(rows)
            table[base + k] = torch.tensordot(weights, rows, dims=1).to(table.dtype)
        if (unused := max(end, before)) < len(table):
            table[unused:] = table[:before].float().mean(0).to(table.dtype)


def extend_checkpoint(
    model: str | Path, plan: MergePlan, out_dir: str | Path, *, dtype: Any = None, pad_to_multiple: int = 1
) -> Path:
    """Writes a checkpoint that can say the new tokens of a plan, for fine-tuning.

    The folder holds what `AutoModelForCausalLM` and `AutoTokenizer` load as it is, chat template and generation
    settings included, and the plan as `merge_plan.tasc`, by which `tasc.data.load_tokenizer` segments outputs. It
    appears under its name when it is whole.

    Args:
        model: Folder of a checkpoint with its tokenizer, or a name on the model hub.
        plan: Learnt with that tokenizer (`learn_vocabulary`).
        out_dir: The folder to write; it must not exist, or be empty.
        dtype: The weights' type, a torch dtype or its name; by default that of the checkpoint.
        pad_to_multiple: See `extend_model`.

    Returns:
        `out_dir`.

    Raises:
        TokenizerMismatchError: The plan was learnt with another tokenizer.
        InputError: A tokenizer or model that cannot be extended, with the reason; a folder that is not empty.
        MissingExtraError: torch or transformers is not installed.
        OSError: The model cannot be read, or the folder not be written.
    """
    extended = extend_tokenizer(model, plan)
    transformers = import_optional("transformers", "hf")
    with new_folder(out_dir) as folder:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype or "auto")
        extend_model(loaded, plan, pad_to_multiple=pad_to_multiple).save_pretrained(folder)
        if (settings := Path(model) / "generation_config.json").is_file():  # as it was, not as transformers fills it up
            shutil.copyfile(settings, folder / settings.name)
        _save_tokenizer(transformers.AutoTokenizer.from_pretrained(model), extended, folder)
    return Path(out_dir)


def _save_tokenizer(original: Any, extended: TaskTokenizer, folder: Path) -> None:
    """The original's settings and chat template, the extended vocabulary, the plan; then all of it is read back."""
    assert extended.plan is not None
    original.save_pretrained(folder)
    extended.tokenizer.save(str(folder / "tokenizer.json"))
    extended.plan.keep(range(len(extended.plan)), folder / PLAN_FILE)
    if not _is_loaded_as(extended, folder):  # classes of transformers that build their own instead of reading the file
        _set_class(folder / "tokenizer_config.json", "PreTrainedTokenizerFast")
        if not _is_loaded_as(extended, folder):
            raise InputError(
                f"transformers makes another tokenizer of {extended.name} than its tokenizer.json says, for example "
                "by adding a token; load it with AutoTokenizer, save it with save_pretrained, and start from that"
            )
        loaded = _auto_tokenizer(folder)
        if any(original(text)["input_ids"] != loaded(text)["input_ids"] for text in PROBES):
            logger.warning(
                "transformers encodes with %s otherwise than its tokenizer.json says; the extended checkpoint follows "
                "the file",
                extended.name,
            )


def _is_loaded_as(extended: TaskTokenizer, folder: Path) -> bool:
    return load_tokenizer(_auto_tokenizer(folder)).fingerprint == extended.fingerprint


def _auto_tokenizer(folder: Path) -> Any:
    return import_optional("transformers", "hf").AutoTokenizer.from_pretrained(folder)


def _set_class(config: Path, name: str) -> None:
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**settings, "tokenizer_class": name}, indent=2), encoding="utf-8")
