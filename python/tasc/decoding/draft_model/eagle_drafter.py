"""Drafts of an EAGLE head, one token after the other, from the target's last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from tasc.checks import wrong
from tasc.decoding.draft_model.cache import DraftRows, Owner, Row
from tasc.decoding.draft_model.drafter import ModelDrafter, ModelRequest
from tasc.decoding.draft_model.eagle import LlamaForCausalLMEagle3, is_head, is_head_folder, load_head
from tasc.decoding.engine.cache import DynamicStepView, RowCache, StaticStepView, StepView
from tasc.decoding.engine.target import Target
from tasc.decoding.engine.weight_watcher import WeightWatcher
from tasc.drafting.protocol import Costs, Draft, TokenIds
from tasc.errors import InputError


class EagleDrafter(ModelDrafter):
    """Drafts with an EAGLE head (`eagle.py`): its most probable tokens at temperature 0, its samples above.

    The first token of a draft is computed from the target's states of all verified tokens, each further one from the
    head's own estimate of the state. The step that reads a prompt has no draft, because the target's states of the
    prompt come from it. Output and cache rows are as for `ModelDrafter`.

    Args:
        head: A head that has read its target, as `load_head` returns it.
        length: As for `ModelDrafter`.
        name: The name in reports.
        step_cost: As for `ModelDrafter`.

    Raises:
        InputError: It is no head, or an option is out of its range.

    Examples:
        >>> drafter = EagleDrafter.load("path/to/head", model)                 # doctest: +SKIP
        >>> generator = Generator(model, tokenizer, drafter=drafter)           # doctest: +SKIP
    """

    reads_states = True

    def __init__(
        self, head: Any, *, length: int | None = None, name: str = "eagle", step_cost: float | None = None
    ) -> None:
        if not is_head(head):
            raise wrong("head", head, "an EAGLE head, as load_head loads it")
        super().__init__(head, length=length, name=name, step_cost=step_cost)

    @classmethod
    def load(cls, folder: str | Path, target: Any, **options: Any) -> Self:
        """Load a head for a target, in the target's type and place.

        Args:
            folder: Folder that `distill` has written.
            target: The target model.
            **options: Of `EagleDrafter`.

        Raises:
            InputError: The folder holds no head, or one for a target of another width or vocabulary.
        """
        if not is_head_folder(folder):
            raise InputError(f"{folder} holds no EAGLE head; distil one with tasc distill --draft eagle")
        return cls(load_head(folder, target, target.dtype), **options)

    def _target(self, model: Any) -> Target:
        return Target(model)

    def _new_rows(self, cuda_graphs: bool | None, plain: bool) -> DraftRows:
        return HeadRows(self.target)

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Refuse a target with another number of ids.

        Args:
            vocab_size: Rows of the target's embeddings.
            tokenizer: Not used.

        Raises:
            InputError: The numbers differ.
        """
        if vocab_size != self.target.vocab_size:
            raise InputError(
                f"the EAGLE head is for a target with {self.target.vocab_size} ids, the target has {vocab_size}; give "
                "the head's own target"
            )

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> EagleRequest:
        """Start a request; the input is not used."""
        return EagleRequest(self, [int(token) for token in prompt_ids])

    def _feed_cost(self, request: ModelRequest, curve: Costs) -> float:
        """Return the cost of reading verified tokens in one pass, and each token of the prefix in one of its own."""
        return float(curve[min(request.unread, len(curve)) - 1]) + len(request.given)


class EagleRequest(ModelRequest):
    """Running request of an `EagleDrafter`."""

    states: Tensor | None = None
    """(L, d) target's states at the first L verified tokens; None outside of a draft."""

    def read_states(self, states: Tensor) -> None:
        """Take the target's states.

        Fewer of them than the head has read: the target computes its tokens again, with other weights or rotary
        factors. What the head has computed from the old states is dropped.
        """
        self.states = states
        if isinstance(self.row, HeadRow) and len(states) + 1 < self.row.reusable:
            self._drafter.rows.cut(self.row, 0)

    def begin(self, prefix: Draft, max_tokens: int) -> bool:
        """Begin a draft after a prefix. Returns whether the head can extend it: all states are there."""
        ready = self.states is not None and 0 < self.verified - 1 <= len(self.states)
        return super().begin(prefix, max_tokens) and ready

    def made(self) -> Draft:
        """Return the draft."""
        self.states = None  # the target's next step overwrites them
        return super().made()


@dataclass(slots=True, eq=False)
class HeadRow(Row):
    """One row of a head's cache; the keys and values of token j are at position j − 1.

    Attributes:
        num_read: Number of the first tokens that were read with the target's states.
        state: (d,) estimate at the last of the `length` tokens.
    """

    num_read: int = 0
    state: Tensor | None = None

    @property
    def reusable(self) -> int:
        """Number of the first tokens whose keys and values serve other requests too: those of the target's states."""
        return min(self.length, self.num_read)


class HeadRows(DraftRows):
    """The cache of an EAGLE head, one row per running request.

    Its keys and values are computed from the target's states. They are dropped when the target's weights have changed,
    as when another adapter is active.
    """

    _new_row = HeadRow

    def __init__(self, target: Target) -> None:
        """`target`: the head."""
        super().__init__(target, cuda_graphs=False, plain=False)
        read_from = target.model.read_from
        self._states_weights = None if read_from is None else WeightWatcher(read_from)

    def place(self, owners: Sequence[Owner]) -> None:
        """Give each owner a row; any rows run together."""
        for owner in owners:
            if owner.row is None:
                self._assign_row(owner)

    def step(self, owners: Sequence[Any]) -> Tensor:
        """Run the owners' tokens that the cache does not hold, at least one each.

        Verified tokens run in one pass with the target's states. Each token behind them runs with the estimate of the
        pass before.

        Args:
            owners: `EagleRequest`s.

        Returns:
            (n, V) logits after the last token of each.
        """
        head = self._target.model
        for owner in owners:
            owner.row.length = min(owner.row.length, len(owner.tokens) - 1)
        unread = list(owners)
        while unread:
            self._pass(head, unread)
            unread = [owner for owner in unread if owner.row.length < len(owner.tokens)]
        logits: Tensor = head.lm_head(torch.stack([owner.row.state for owner in owners]))
        return logits

    def cut(self, row: Row, length: int) -> None:
        """Take back the tokens of a row behind the first `length` ones, and those of estimated states."""
        row.length = min(row.reusable, length)

    def _pass(self, head: LlamaForCausalLMEagle3, owners: Sequence[Any]) -> None:
        """Run the verified unread tokens of each owner, or one token behind them."""
        starts = [max(1, owner.row.length) for owner in owners]  # no state is before the first token
        ends = [
            owner.verified if start < owner.verified else start + 1 for owner, start in zip(owners, starts, strict=True)
        ]
        query, most = max(end - start for start, end in zip(starts, ends, strict=True)), max(ends) - 1
        device, width = self._target.device, head.config.hidden_size
        ids = torch.zeros(len(owners), query, dtype=torch.long)
        positions = torch.full_like(ids, -1)
        states = torch.zeros(len(owners), query, width, dtype=head.dtype, device=device)
        for place, (owner, start, end) in enumerate(zip(owners, starts, ends, strict=True)):
            count = end - start
            ids[place, -count:] = torch.tensor(owner.tokens[start:end])
            positions[place, -count:] = torch.arange(start - 1, end - 1)
            verified = start < owner.verified
            states[place, -count:] = owner.states[start - 1 : end - 1] if verified else owner.row.state
        self._cache.reserve(most)
        positions = positions.to(device)
        view = self._view(owners, positions, most)
        shown = positions.clamp(min=0)
        mask = None
        if query > 1 or len(owners) > 1:
            mask = shown[:, None, :, None] >= torch.arange(most, device=device)
        assert isinstance(self._cache, RowCache)
        self._cache.view = view
        found = head.run(ids.to(device), states, shown, mask, partial(self._cache.update, layer_idx=0))
        for owner, start, end, state in zip(owners, starts, ends, found[:, -1], strict=True):
            owner.row.length, owner.row.state = end, state
            if start < owner.verified:
                owner.row.num_read = end

    def _view(self, owners: Sequence[Any], positions: Tensor, end: int) -> StepView:
        rows = [owner.row.index for owner in owners]
        if len(rows) == 1:
            return DynamicStepView(rows[0], positions, int(positions[0, 0]), end, self._target.device)
        scratch = self._cache.num_positions  # type: ignore[union-attr]
        return StaticStepView(torch.tensor(rows, device=positions.device), positions, end, scratch, from_row_0=False)

    def _assign_row(self, owner: Owner) -> None:
        """Give an owner a free row, with the longest prefix of its tokens that some row holds."""
        if self._states_weights is not None and self._states_weights.changed():
            self._drop_contents()
        super()._assign_row(owner)
        row = owner.row
        assert isinstance(row, HeadRow)
        row.num_read, row.state = row.length, None
