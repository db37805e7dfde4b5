from __future__ import annotations

import io
import re

import pytest

from edgekd.progress import Bars, Lines, Silent, for_stream, unless_brief


def test_lines_tell_start_share_and_end() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0).task("distilled", 4) as task:
        task.advance(1)
        task.advance(2, "epoch 1/2 val 70.0 %")
        task.advance(1)
    assert stream.getvalue().splitlines() == [
        "  distilled: started",
        "  distilled: 25 %, 0 s left",
        "  distilled: 75 %, 0 s left, epoch 1/2 val 70.0 %",
        "  distilled: done in 0 s, epoch 1/2 val 70.0 %",
    ]


def test_no_time_left_is_told_from_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes 30 s of a minute: no hour is foretold."""
    clock, stream = [0.0], io.StringIO()
    monkeypatch.setattr("edgekd.progress.time.monotonic", lambda: clock[0])
    with Lines(stream, every=20).task("profile", 100) as task:
        clock[0] = 30.0
        task.advance(1, "load onnx")
    assert "  profile: 1 %, load onnx\n" in stream.getvalue()


def test_time_left_is_what_the_rest_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("edgekd.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Lines(stream, every=20).task("decoding", 100) as task:
        for seconds, steps in ((19, 5), (1, 5), (10, 10), (10, 0), (160, 70)):
            now[0] += seconds
            task.advance(steps)
        now[0] += 1
    assert stream.getvalue().splitlines() == [
        "  decoding: started",
        "  decoding: 10 %, 3 min 00 s left",  # 10 of 100 in 20 s
        "  decoding: 20 %, 2 min 40 s left",  # 20 of 100 in 40 s
        "  decoding: 90 %, 22 s left",
        "  decoding: done in 3 min 21 s",
    ]


def test_work_that_grows_goes_back_and_says_what_is_left_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("edgekd.progress.time.monotonic", lambda: now)
    stream = io.StringIO()
    with Lines(stream, every=0).task("profile", 100) as task:
        now = 90.0
        task.advance(90)
        task.advance(-45, "again")
    assert stream.getvalue().splitlines()[1:3] == ["  profile: 90 %, 10 s left", "  profile: 45 %, 1 min 50 s left, again"]


def test_nothing_done_yet_is_no_division_by_zero() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0).task("profile", 100) as task:
        task.advance(0, "loading")
        task.advance(50)
    assert "  profile: 50 %, 0 s left, loading\n" in stream.getvalue()


def test_work_that_fails_is_not_done() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Lines(stream).task("distilled", 4):
        raise RuntimeError
    assert stream.getvalue() == "  distilled: started\n"


def test_lines_are_quiet_in_between() -> None:
    stream = io.StringIO()
    with Lines(stream, every=3600).task("distilled", 1000) as task:
        for _ in range(1000):
            task.advance()
    assert len(stream.getvalue().splitlines()) == 2


def test_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Silent().task("distilled", 4) as task:
        task.advance(1, "note")
    Silent().say("text")
    assert capfd.readouterr() == ("", "")


def test_bars_write_to_standard_error_only(capfd: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    bars.say("  [bold]fitnet: features.1[/bold]")  # brackets are text
    with bars.task("distilled", 4) as task:
        task.advance(4, "epoch 1/2")
    out, err = capfd.readouterr()
    assert out == ""
    assert "  [bold]fitnet: features.1[/bold]" in err
    assert re.search(r"distilled .*100 %.*epoch 1/2", err)


def test_for_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    assert isinstance(for_stream(stream), Lines)
    for_stream(stream).say("to this stream")
    assert stream.getvalue() == "to this stream\n"
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert isinstance(for_stream(stream), Bars)


@pytest.mark.parametrize("progress", [Lines(), Bars(), Silent()], ids=lambda progress: type(progress).__name__)
def test_progress_goes_into_another_process(progress: object) -> None:
    """Training on several processes hands it to each of them."""
    import pickle

    copy = pickle.loads(pickle.dumps(progress))
    copy.say("here")
    with copy.task("work", 2) as task:
        task.advance(2)


def test_what_is_done_in_a_moment_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("edgekd.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    for seconds in (0.4, 30.0):
        with unless_brief(Lines(stream, every=20), "decoding", 4, after=2.0) as task:
            for _ in range(4):
                now[0] += seconds
                task.advance()
    assert stream.getvalue().splitlines() == [  # of the second one, from the first step on
        "  decoding: started",
        "  decoding: 33 %, 1 min 00 s left",
        "  decoding: 66 %, 30 s left",
        "  decoding: done in 1 min 30 s",
    ]
