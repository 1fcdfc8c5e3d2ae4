"""A draft that was cut from a target uses its embeddings in place, and says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from drafts import folder, tiny  # noqa: E402

from tasc.decoding.draft_model.loading import load_draft  # noqa: E402
from tasc.models import share_embeddings  # noqa: E402
from tasc.training.distill import cut_draft  # noqa: E402


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_equal_matrices_become_one(tied: bool, tmp_path: Path) -> None:
    target = tiny(tie_word_embeddings=tied)
    draft = cut_draft(target, 2)
    ids = torch.randint(2, 200, (1, 7))
    before = draft(ids).logits
    rows = target.get_input_embeddings().weight
    loaded, _ = load_draft(str(folder(tmp_path / "draft", draft)), target, dtype="float32", device="cpu")
    assert loaded.get_input_embeddings().weight is rows
    assert loaded.get_output_embeddings().weight is target.get_output_embeddings().weight
    assert torch.equal(loaded(ids).logits, before)
    assert share_embeddings(draft, target) == rows.numel() * 4 * (1 if tied else 2)
    assert share_embeddings(draft, target) == 0


def test_others_stay_as_they_are() -> None:
    target = tiny()
    for other in (tiny(2, seed=1), tiny(2).double(), tiny(2, vocab=500)):
        own = other.get_input_embeddings().weight
        assert share_embeddings(other, target) == 0 and other.get_input_embeddings().weight is own
