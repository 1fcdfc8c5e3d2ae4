"""Several callers at once: every output is what `generate` gives alone, and what stops one caller stops no other."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pytest
import torch
from forks import exit_code_of_fork
from tiny_models import EOS, PromptLookup, byte_tokenizer, random_prompts, tiny_model

from tasc import Generator, NullDrafter, TokenDraft
from tasc.decoding.sampling import Sampler
from tasc.drafting.protocol import Drafter, Request
from tasc.errors import InputError, NoTokenError, PromptError, QueueFullError

TOKENIZER = byte_tokenizer()
LONG = 40


class Held(Drafter, Request):
    """Holds each step of its request until `go` is set; `began` says that the request runs."""

    name = "held"
    fixed_length = True  # never paused

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Held:
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        self.began.set()
        assert self.go.wait(30)
        return TokenDraft()

    def update(self, ids: Any) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


def make(model: Any, **options: Any) -> Generator:
    return Generator(model, TOKENIZER, **{"drafter": PromptLookup(), "costs": 0.02, "batch_size": 3, **options})


@lru_cache(1)
def plain(model: Any) -> Generator:
    return Generator(model, TOKENIZER, drafter=NullDrafter())


def alone(model: Any, prompt: list[int], **options: Any) -> tuple[list[int], str, str]:
    position = options.pop("position", 0)
    [made] = plain(model).generate(prompts=[prompt], positions=[position], **options)
    return made.ids, made.text, made.finish_reason


def some_options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"max_tokens": rng.randrange(1, LONG), "eos": rng.choice([(), (EOS,), (5, 77, 130)])}
    if rng.random() < 0.5:
        options |= {"temperature": rng.choice([0.7, 1.3]), "seed": rng.randrange(99), "position": rng.randrange(9)}
    if rng.random() < 0.3:
        options["repetition_penalty"] = 1.3
    if rng.random() < 0.4:
        options["stop"] = [chr(rng.randrange(33, 120)) for _ in range(3)]
    return options


def some_requests(count: int, seed: int) -> list[tuple[list[int], dict[str, Any]]]:
    """Requests of different options, half of which share a prefix."""
    rng = random.Random(seed)
    prefix = [rng.randrange(1, 250) for _ in range(30)]
    prompts = [prefix * (number % 2) + prompt for number, prompt in enumerate(random_prompts(count, seed))]
    return [(prompt, some_options(rng)) for prompt in prompts]


@pytest.mark.parametrize(
    ("architecture", "batch_size", "together"),
    [("llama", 1, False), ("llama", 4, True), ("gpt2", 4, False), ("gemma3-window", 3, False)],
)
def test_outputs_of_threads_equal_those_of_one_request_alone(
    architecture: str, batch_size: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sampler.__init__

    def init(self: Sampler, *args: Any) -> None:
        original(self, *args)
        self.prefers_batch = together

    monkeypatch.setattr(Sampler, "__init__", init)
    model = tiny_model(architecture)
    requests = some_requests(12, seed=batch_size)
    expected = [alone(model, prompt, **dict(options)) for prompt, options in requests]
    with make(model, batch_size=batch_size) as generator, ThreadPoolExecutor(6) as threads:

        def ask(number: int) -> tuple[list[int], str, str]:
            prompt, options = requests[number]
            if number % 3 == 0:  # a call of generate
                pieces: list[str] = []
                options = {**options, "stream": lambda _, __, text: pieces.append(text)}
                position = options.pop("position", 0)
                made = generator.generate(prompts=[prompt], positions=[position], **options)[0]
                assert "".join(pieces) == made.text
            else:
                future = generator.submit(prompt=prompt, **options)
                if number % 3 == 2:  # and another one that is not wanted
                    generator.submit(prompt=prompt, **options).cancel()
                made = future.result(60)
            return made.ids, made.text, made.finish_reason

        assert list(threads.map(ask, range(len(requests)))) == expected


def test_a_request_joins_and_leaves_a_running_batch(model: Any) -> None:
    [long, short] = random_prompts(2)
    ended: list[str] = []
    with make(model, batch_size=2, drafter=NullDrafter()) as generator:
        held = Held()
        first = generator.submit(prompt=long, max_tokens=LONG, eos=(), drafter=held)
        assert held.began.wait(30)
        second = generator.submit(prompt=short, max_tokens=3, eos=())
        first.add_done_callback(lambda _: ended.append("first"))
        second.add_done_callback(lambda _: ended.append("second"))
        held.go.set()
        assert first.result(60).ids == alone(model, long, max_tokens=LONG, eos=())[0]
        assert second.result(60).ids == alone(model, short, max_tokens=3, eos=())[0]
    assert ended == ["second", "first"]


def test_rows_that_become_free_go_to_callers_in_turn(model: Any) -> None:
    prompts = random_prompts(6)
    started: list[int] = []

    class Noted(Drafter):
        name = "noted"

        def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
            started.append(prompts.index(list(prompt_ids)))
            return NullDrafter().start(prompt_ids)

    with make(model, batch_size=1, drafter=Noted()) as generator, ThreadPoolExecutor(1) as threads:
        held = Held()
        first = generator.submit(prompt=[1], max_tokens=2, drafter=held)
        assert held.began.wait(30)
        many = threads.submit(generator.generate, prompts=prompts[:4], max_tokens=2, eos=())
        while len(generator._scheduler._calls) < 2:
            time.sleep(0.001)
        others = [generator.submit(prompt=prompt, max_tokens=2, eos=()) for prompt in prompts[4:]]
        held.go.set()
        for future in (first, many, *others):
            future.result(60)  # type: ignore[attr-defined]
    assert started == [0, 4, 5, 1, 2, 3]


def test_a_slow_callback_misses_nothing(model: Any) -> None:
    pieces: list[str] = []
    ended: list[int] = []
    with make(model, batch_size=2) as generator, ThreadPoolExecutor(1) as threads:
        held = Held()
        generator.submit(prompt=[1], max_tokens=3, drafter=held)
        assert held.began.wait(30)

        def slow(_: int, __: list[int], text: str) -> None:
            pieces.append(text)
            while generator._scheduler._calls:  # until the worker has ended both
                time.sleep(0.001)

        options: dict[str, Any] = {"stream": slow, "finished": lambda number, _: ended.append(number)}
        call = threads.submit(generator.generate, prompts=[[5, 6]], max_tokens=9, eos=(), **options)
        while len(generator._scheduler._calls) < 2:
            time.sleep(0.001)
        held.go.set()
        [made] = call.result(60)
    assert "".join(pieces) == made.text
    assert ended == [0]


@pytest.mark.parametrize("kind", ["generate", "submit", "stream", "other"])
@pytest.mark.parametrize("where", ["stream", "finished"])
def test_a_callback_may_use_the_generator(model: Any, kind: str, where: str) -> None:
    [outer, inner] = random_prompts(2, seed=3)
    other = make(model)
    options: dict[str, Any] = {"max_tokens": 4, "eos": ()}
    seen: list[list[int]] = []

    async def read() -> list[int]:
        return [token async for piece in generator.stream(prompt=inner, **options) for token in piece.ids]

    def use(*_: Any) -> None:
        if kind == "stream":
            seen.append(asyncio.run(read()))
        elif kind == "submit":
            seen.append(generator.submit(prompt=inner, **options).result(60).ids)
        else:
            by = other if kind == "other" else generator
            seen.append(by.generate(prompts=[inner], **options)[0].ids)

    with make(model) as generator:
        made = generator.generate(prompts=[outer], max_tokens=8, eos=(), **{where: use})
    assert made[0].ids == alone(model, outer, max_tokens=8, eos=())[0]
    assert seen
    assert all(ids == alone(model, inner, **options)[0] for ids in seen)


def test_an_error_stays_with_its_request() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[9] = float("nan")
    good = [prompt for prompt in random_prompts(8, vocab=8)]
    with make(model, batch_size=4) as generator:
        futures = [generator.submit(prompt=prompt, max_tokens=6, eos=()) for prompt in good[:4]]
        bad = generator.submit(prompt=[5, 9, 6], max_tokens=6)
        futures += [generator.submit(prompt=prompt, max_tokens=6, eos=()) for prompt in good[4:]]
        assert isinstance(bad.exception(60), NoTokenError)
        for prompt, future in zip(good, futures, strict=True):
            assert future.result(60).ids == alone(model, prompt, max_tokens=6, eos=())[0]
        with pytest.raises(PromptError, match="vocabulary has 257 ids"):
            generator.submit(prompt=[999])
        with pytest.raises(TypeError, match="submit and stream have no option 'max_token'; they have system"):
            generator.submit("a", max_token=1)  # type: ignore[call-arg]
        with pytest.raises(InputError, match="give input or prompt=, not both"):
            generator.submit("a", prompt=[1])
        with pytest.raises(InputError, match="top_p is 2"):
            generator.submit(prompt=[1], top_p=2)
        with pytest.raises(PromptError):
            generator.submit(None)  # type: ignore[arg-type]


def test_what_a_step_raises_stops_its_requests_alone(model: Any) -> None:
    prompts = random_prompts(3)
    with make(model, batch_size=1, drafter=NullDrafter()) as generator:
        held = Held()
        first = generator.submit(prompt=prompts[0], max_tokens=9, drafter=held)
        assert held.began.wait(30)
        rest = [generator.submit(prompt=prompt, max_tokens=9, eos=()) for prompt in prompts[1:]]

        def fail(*_: Any) -> None:
            hook.remove()
            raise MemoryError("no more")

        hook = model.register_forward_pre_hook(fail)
        held.go.set()
        assert isinstance(first.exception(60), MemoryError)
        made = [future.result(60).ids for future in rest]
    assert made == [alone(model, prompt, max_tokens=9, eos=())[0] for prompt in prompts[1:]]


def test_cancelled_requests_leave_and_the_others_stay(model: Any) -> None:
    prompts = random_prompts(5)
    with make(model, batch_size=2, drafter=NullDrafter()) as generator:
        held = Held()
        running = generator.submit(prompt=prompts[0], max_tokens=LONG, drafter=held, eos=())
        assert held.began.wait(30)
        others = [generator.submit(prompt=prompt, max_tokens=5, eos=()) for prompt in prompts[1:]]
        assert running.cancel()
        assert others[2].cancel()
        assert running.cancel()  # again
        held.go.set()
        for number in (0, 1, 3):
            assert others[number].result(60).ids == alone(model, prompts[number + 1], max_tokens=5, eos=())[0]
        for cancelled in (running, others[2]):
            with pytest.raises(CancelledError):
                cancelled.result(60)
        assert not others[0].cancel()
    assert len(generator._scheduler._calls) == 0


def test_a_full_queue_waits_or_says_so(model: Any) -> None:
    prompts = random_prompts(4)
    with make(model, batch_size=1, max_requests=2, drafter=NullDrafter()) as generator, ThreadPoolExecutor(1) as pool:
        held = Held()
        first = generator.submit(prompt=prompts[0], max_tokens=2, drafter=held)
        second = generator.submit(prompt=prompts[1], max_tokens=2, timeout=0)
        for timeout in (0, 0.01):
            with pytest.raises(QueueFullError, match=r"2 submitted requests have not ended.*max_requests="):
                generator.submit(prompt=prompts[2], timeout=timeout)

        async def read() -> None:
            with pytest.raises(QueueFullError):
                async for _ in generator.stream(prompt=prompts[2], timeout=0):
                    pass

        asyncio.run(read())
        waits = pool.submit(lambda: generator.submit(prompt=prompts[3], max_tokens=2, eos=()).result(60).ids)
        second.cancel()  # its place goes to the one that waits
        held.go.set()
        assert waits.result(60) == alone(model, prompts[3], max_tokens=2, eos=())[0]
        first.result(60)
        with pytest.raises(InputError, match="max_requests is 0"):
            make(model, max_requests=0)
    scheduler = generator._scheduler
    assert (scheduler._free_places, len(scheduler._asking)) == (2, 0)


def test_the_end_of_a_with_block_waits_and_close_does_not(model: Any) -> None:
    [prompt] = random_prompts(1)
    with make(model) as generator:
        future = generator.submit(prompt=prompt, max_tokens=9, eos=())
    assert future.done()
    assert future.result().ids == alone(model, prompt, max_tokens=9, eos=())[0]
    held = Held()
    running = generator.submit(prompt=prompt, max_tokens=9, drafter=held)
    assert held.began.wait(30)
    worker = generator._scheduler._worker
    threading.Timer(0.05, held.go.set).start()
    generator.close()
    assert running.cancelled()
    assert worker is not None
    assert not worker.is_alive()
    with pytest.raises(ZeroDivisionError), make(model) as other:
        left = other.submit(prompt=prompt, max_tokens=200, eos=())
        raise ZeroDivisionError
    assert left.done()
    assert generator.submit(prompt=prompt, max_tokens=9, eos=()).result(60).ids == future.result().ids
    generator.close()


def test_a_generator_that_nobody_has_takes_its_thread_with_it(model: Any) -> None:
    generator = make(model)
    generator.submit(prompt=[1], max_tokens=1).result(60)
    worker = generator._scheduler._worker
    assert worker is not None
    assert worker.is_alive()
    del generator
    worker.join(30)
    assert not worker.is_alive()


def test_waiting_in_a_done_callback_is_one_clear_error(model: Any) -> None:
    seen: Future[BaseException] = Future()
    with make(model) as generator:

        def wait(_: Any) -> None:
            for call in (
                lambda: generator.generate(prompts=[[1]]),
                lambda: generator.submit(prompt=[1], max_tokens=2).result(),
            ):
                with pytest.raises(InputError, match="a done callback of submit") as caught:
                    call()
            seen.set_result(caught.value)

        held = Held()
        future = generator.submit(prompt=[1], max_tokens=1, drafter=held)
        future.add_done_callback(wait)
        held.go.set()
        assert isinstance(seen.result(60), InputError)


def test_a_done_callback_that_waits_for_another_generator_of_the_model_is_the_same_error(model: Any) -> None:
    seen: Future[BaseException | None] = Future()
    with make(model) as one, make(model) as other:
        held = Held()
        future = one.submit(prompt=[1], max_tokens=2, drafter=held)
        future.add_done_callback(
            lambda _: seen.set_result(run_and_catch(lambda: other.submit(prompt=[1], max_tokens=1).result(5)))
        )
        held.go.set()
        assert "a done callback of submit" in str(seen.result(60))


def run_and_catch(call: Any) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def test_a_request_that_ends_with_its_first_token_does_not_run_in_the_thread_of_another_call(model: Any) -> None:
    names: list[str] = []
    with make(model, drafter=NullDrafter(), batch_size=2) as generator, ThreadPoolExecutor(1) as threads:
        held = Held()
        call = threads.submit(generator.generate, prompts=[[1, 2]], max_tokens=4, eos=(), drafter=held)
        assert held.began.wait(30)  # in the caller's thread
        future = generator.submit(prompt=[3, 4], max_tokens=1, eos=())
        future.add_done_callback(lambda _: names.append(threading.current_thread().name))
        held.go.set()
        call.result(60)
    assert names == ["tasc-generator"]


def test_a_done_callback_that_exits_stops_no_other_request(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    with make(model, drafter=NullDrafter(), batch_size=2) as generator:
        held = Held()
        first = generator.submit(prompt=[1, 2], max_tokens=3, eos=(), drafter=held)
        assert held.began.wait(30)
        other = generator.submit(prompt=[1, 3], max_tokens=LONG, eos=())
        first.add_done_callback(lambda _: sys.exit(3))
        held.go.set()
        assert other.result(60).ids == alone(model, [1, 3], max_tokens=LONG, eos=())[0]
    assert "a done callback of submit() raised" in caplog.text


def test_an_interrupt_before_the_first_step_stops_its_own_call(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(model) as generator:
        scheduler, futures = generator._scheduler, []
        session = scheduler._session

        def interrupted() -> Any:
            monkeypatch.setattr(scheduler, "_session", session)
            futures.append(generator.submit(prompt=[1, 2], max_tokens=5, eos=()))
            raise KeyboardInterrupt

        monkeypatch.setattr(scheduler, "_session", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generator.generate(prompts=[[3, 4]], max_tokens=5)
        assert futures[0].result(60).ids == alone(model, [1, 2], max_tokens=5, eos=())[0]


def test_outputs_of_one_token_are_reported_as_they_end(model: Any) -> None:
    passes, seen = [], []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        options: dict[str, Any] = {"max_tokens": 1, "finished": lambda *_: seen.append(len(passes))}
        make(model, drafter=NullDrafter(), batch_size=1).generate(prompts=random_prompts(6), **options)
    finally:
        hook.remove()
    assert len(set(seen)) == 6


@pytest.mark.parametrize("runs", [False, True])
def test_futures_of_a_closed_generator_keep_no_drafter(model: Any, runs: bool) -> None:
    held = Held()
    known = weakref.ref(held)
    generator = make(model, drafter=NullDrafter())
    future = generator.submit(prompt=[1], max_tokens=3, eos=(), drafter=held)
    assert held.began.wait(30)
    if runs:
        threading.Timer(0.05, held.go.set).start()
    else:
        held.go.set()
        future.result(60)
    generator.close()
    del held
    gc.collect()
    assert known() is None  # so another process may write to its log
    assert future.done()


def test_autocast_is_the_same_in_every_thread(model: Any) -> None:
    [prompt] = random_prompts(1)
    expected = alone(model, prompt, max_tokens=LONG, eos=())[0]
    with make(model, pack_weights=False) as generator, torch.autocast("cpu", torch.bfloat16):
        assert generator.generate(prompts=[prompt], max_tokens=LONG, eos=())[0].ids == expected
        assert generator.submit(prompt=prompt, max_tokens=LONG, eos=()).result(60).ids == expected


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_streams(model: Any) -> None:
    requests = some_requests(6, seed=7)

    async def read(generator: Generator, prompt: list[int], options: dict[str, Any]) -> tuple[list[int], str, str]:
        pieces = [piece async for piece in generator.stream(prompt=prompt, **options)]
        made = pieces[-1].generation
        assert made is not None
        assert all(piece.generation is None for piece in pieces[:-1])
        assert [token for piece in pieces for token in piece.ids] == made.ids
        return made.ids, "".join(piece.text for piece in pieces), made.finish_reason

    async def read_all() -> list[Any]:
        with make(model) as generator:
            return await asyncio.gather(*(read(generator, prompt, options) for prompt, options in requests))

    assert run(read_all()) == [alone(model, prompt, **dict(options)) for prompt, options in requests]


def test_a_stream_that_is_closed_or_whose_task_ends_is_cancelled(model: Any) -> None:
    async def leave() -> None:
        generator = make(model, drafter=NullDrafter())
        stream = generator.stream(prompt=[1, 2], max_tokens=200, eos=())
        assert (await anext(stream)).ids
        await stream.aclose()  # type: ignore[attr-defined]
        assert not generator._scheduler._calls
        held = Held()
        task = asyncio.ensure_future(anext(generator.stream(prompt=[1, 2], max_tokens=200, drafter=held)))
        assert await asyncio.to_thread(held.began.wait, 30)
        task.cancel()
        await asyncio.wait([task])
        assert not generator._scheduler._calls
        held.go.set()
        with pytest.raises(InputError, match="max_tokens is 0"):
            await anext(generator.stream(prompt=[1], max_tokens=0))
        generator.close()

    run(leave())


def test_a_callback_that_raises_stops_its_own_call(model: Any) -> None:
    prompts = random_prompts(4)
    with make(model, batch_size=2) as generator, ThreadPoolExecutor(2) as threads:

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        calls = [
            threads.submit(generator.generate, prompts=prompts[:2], max_tokens=LONG, eos=(), stream=interrupt),
            threads.submit(generator.generate, prompts=prompts[2:], max_tokens=LONG, eos=()),
        ]
        assert isinstance(calls[0].exception(60), KeyboardInterrupt)
        made = calls[1].result(60)
        assert [each.ids for each in made] == [alone(model, p, max_tokens=LONG, eos=())[0] for p in prompts[2:]]
        again = generator.generate(prompts=prompts[:2], max_tokens=5, eos=())
        assert [each.ids for each in again] == [alone(model, p, max_tokens=5, eos=())[0] for p in prompts[:2]]


def test_generators_of_one_model_take_turns(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasc.decoding.scheduler._SLICE_SECONDS", 0.0)
    prompts = random_prompts(8)
    with make(model) as one, make(model, pack_weights=False) as other:
        futures = [by.submit(prompt=prompt, max_tokens=9, eos=()) for prompt in prompts for by in (one, other)]
        made = [future.result(60).ids for future in futures]
    assert made == [ids for prompt in prompts for ids in [alone(model, prompt, max_tokens=9, eos=())[0]] * 2]
    assert all("forward" not in vars(module) for module in model.modules())


def test_weights_that_change_are_noticed_while_requests_run() -> None:
    model = tiny_model("llama")
    prompts = random_prompts(3)
    before = [alone(model, prompt, max_tokens=20, eos=())[0] for prompt in prompts]

    def touch(*_: Any) -> None:
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.0)  # equal, but the cache cannot know

    generator = make(model, drafter=NullDrafter())
    made = generator.generate(prompts=prompts, max_tokens=20, eos=(), stream=touch)
    assert [item.ids for item in made] == before


def fork_with_a_request() -> None:
    """A process forks while it decodes; the child submits requests, and the parent's request ends."""
    generator, held = make(tiny_model("llama"), drafter=NullDrafter(), batch_size=2), Held()
    future = generator.submit(prompt=[1, 2], max_tokens=4, eos=(), drafter=held)
    assert held.began.wait(30)
    threading.Timer(0.2, held.go.set).start()
    child = os.fork()  # waits for the step
    if child == 0:
        try:
            future.result()
        except InputError as error:
            assert "submit another one in this process" in str(error), error
        one = generator.generate(prompts=[[1, 2]], max_tokens=4, eos=())[0].ids
        two = generator.submit(prompt=[1, 2], max_tokens=4, eos=()).result(30).ids
        generator.close()
        os._exit(0 if one == two else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(future.result(30).ids) == 4


def fork_while_a_caller_finds_its_drafter() -> None:
    """A process forks while another thread prepares a request; the child generates."""
    generator, began = make(tiny_model("llama"), drafter=NullDrafter(), batch_size=2), threading.Event()

    class Slow(NullDrafter):
        def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
            began.set()
            time.sleep(0.3)

    given: dict[str, Any] = {"prompts": [[1]], "max_tokens": 2}
    caller = threading.Thread(target=generator.generate, kwargs={**given, "drafter": Slow()})
    caller.start()
    assert began.wait(30)
    child = os.fork()
    if child == 0:
        own = threading.Thread(target=generator.generate, kwargs=given, daemon=True)
        own.start()
        own.join(20)
        os._exit(int(own.is_alive()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    caller.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("forks", [fork_with_a_request, fork_while_a_caller_finds_its_drafter])
def test_a_fork_waits_and_its_child_has_its_own_requests(forks: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The process that forks is itself a fork, with no other generator."""
    assert exit_code_of_fork(forks) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_the_interpreter_ends_while_requests_run() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_concurrent import NullDrafter, make, tiny_model\n"
        "generator = make(tiny_model('llama'), drafter=NullDrafter(), batch_size=2)\n"
        "futures = [generator.submit(prompt=[1, 2], max_tokens=200, eos=()) for _ in range(20)]\n"
        "print('end')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "end\n"
