"""Models, devices and types that are not there are said at once, before anything is loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from conftest import train_tokenizer
from typer.testing import CliRunner

from tasc.cli import app
from tasc.data import load_tokenizer
from tasc.errors import InputError
from tasc.models import check_loadable, check_name

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the hub is asked for; it has `org/model` and is not reached for `org/far`."""
    names: list[str] = []

    def model_info(self: Any, name: str, *, timeout: float) -> None:
        names.append(name)
        if name == "org/far":
            raise OSError("no route to the host\nat all")
        if name != "org/model":
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
            raise huggingface_hub.errors.RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return names


def test_smollm2_is_the_embedded_model_for_commands_that_make_models(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer(["<|endoftext|>"]).save(str(tmp_path / "tokenizer.json"))
    for module in ("tasc.models", "tasc.data.tokenizer"):
        monkeypatch.setattr(f"{module}.smollm2", lambda: tmp_path)
    used: list[str] = []

    def take(model: str, *_: Any, **__: Any) -> None:
        used.append(model)
        raise InputError("enough")

    monkeypatch.setattr("tasc.vocab.surgery.extend_checkpoint", take)
    monkeypatch.setattr("tasc.training.finetune.tune.tune", take)
    rows, plan = tmp_path / "rows.jsonl", tmp_path / "task.plan"
    rows.write_text('{"input": "a b", "output": "say it again and again and again"}\n' * 20)
    for command in (
        f"vocab learn {rows} --tokenizer smollm2 -k 5 --held-out 0 -o {plan}",
        f"vocab apply --model smollm2 --plan {plan} -o {tmp_path}/extended",
        f"tune --model smollm2 --data {rows} -o {tmp_path}/tuned",
    ):
        CliRunner().invoke(app, command.split())
    assert plan.exists()
    assert used == [str(tmp_path)] * 2
    assert asked == []


def test_names_of_the_hub_are_asked_for_once(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path)
    check_name("tuned")
    check_name("smollm2")
    assert asked == []
    check_name("org/model")
    for name, why in (
        ("tunde", "cannot load model 'tunde': there is no such folder, and the model hub has no such model, or it is "
         "private; is it tuned?"),
        ("org/far", "'org/far': there is no such folder, and the model hub was not reached (no route to the host)"),
        ("./tunde", "cannot load model './tunde': there is no such folder; is it tuned?"),
        (f"{tmp_path}/x/y", f"cannot load model '{tmp_path}/x/y': there is no such folder"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            check_name(name)
        assert str(error.value).endswith(why)
    assert asked == ["org/model", "tunde", "org/far"]
    with pytest.raises(InputError, match="model hub has no such model"):
        load_tokenizer("tunde")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the hub's cache does not have it"):
        check_name("tunde")


def test_an_unreachable_hub_costs_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(InputError, match="there is no such folder, and the model hub"):
        check_name("tasc-test-no-such-owner/no-such-model")
    assert waited == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"device": "cdua"}, "cannot use device 'cdua': .*; leave it out, or give cpu"),
        ({"device": "cuda:99"}, "cannot use device 'cuda:99'"),
        ({"dtype": "int3"}, "dtype 'int3' is none of auto, float32"),
        ({"adapter": Path("/no/adapter")}, "/no/adapter is not an adapter's folder"),
    ],
)
def test_what_no_model_can_be_loaded_with(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    with pytest.raises(InputError, match=why) as error:
        check_loadable(str(tmp_path), None, **options)
    assert "\n" not in str(error.value)
