"""The source `downward` against files as a kubelet writes them: atomically, by a symbolic link that is replaced."""

import asyncio
import contextlib
import io
import json
import os
import shutil

import pytest

from contract.names import ASSIGNMENT
from sidecar.cluster import downward
from sidecar.cluster.downward import FILE_MAX, AnnotationFile, annotation
from sidecar.errors import EnvironmentMissing
from sidecar.journal import Journal

# each as Go 1.26 printed it with %q
QUOTED = [
    ('""', ""),
    ('"plain"', "plain"),
    (r'"{\"v\":1}"', '{"v":1}'),
    (r'"a\nb\tc\\\""', 'a\nb\tc\\"'),
    ('"é漢🜁"', "é漢🜁"),
    (r'"\a\b\f\r\v\x00\x1f\x7f"', "\a\b\f\r\v\x00\x1f\x7f"),
    (r'"\u00ad\u200b\ufeff"', "\u00ad\u200b\ufeff"),
    (r'"\U000e0001"', "\U000e0001"),
    ("\"'single'\"", "'single'"),
    (r'"=\"=\""', '="="'),
]


@pytest.mark.parametrize(("quoted", "value"), QUOTED)
def test_a_value_is_what_go_quoted(quoted, value):
    assert annotation(f'a="1"\nk={quoted}\nz="2"', "k") == value


def test_an_annotation_is_known_by_its_whole_name():
    text = f'a{ASSIGNMENT}="no"\n{ASSIGNMENT}-2="no"\nb="x\\n{ASSIGNMENT}=no"'
    assert annotation(text, ASSIGNMENT) is None
    assert annotation("", ASSIGNMENT) is None


@pytest.mark.parametrize("quoted", ["", '"', "bare", '"open', r'"\q"', r'"\x1"', r'"\u12"', r'"\x1G"'])
def test_what_is_not_quoted_is_refused(quoted):
    with pytest.raises(ValueError, match=r"escape|quotation"):
        annotation(f"k={quoted}", "k")


def entry(route):
    return {
        "route": route,
        "lease": f"holdfast-{route}",
        "handover": "Exclusive",
        "addresses": [{"address": f"34.123.10.{ord(route)}/32"}],
    }


def assigning(*routes):
    return json.dumps({"v": 1, "routes": [entry(route) for route in routes]})


class Volume:
    """A directory, and files in it that are replaced as a kubelet's AtomicWriter replaces them."""

    def __init__(self, folder):
        self.folder = folder
        self.number = 0
        self.write("")
        (folder / "annotations").symlink_to("..data/annotations")

    def write(self, text):
        """Put other contents in place of all that was there."""
        old = (self.folder / "..data").resolve()
        self.number += 1
        new = self.folder / f"..version_{self.number}"
        new.mkdir()
        (new / "annotations").write_bytes(text if isinstance(text, bytes) else text.encode())
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").replace(self.folder / "..data")
        if self.number > 1:
            shutil.rmtree(old)

    def annotate(self, value):
        """Write it beside what other people's annotations say; json.dumps quotes ASCII as Go does."""
        self.write(f'a="{{"\n{ASSIGNMENT}={json.dumps(value)}\nz="\\"\\n"')


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path)


class Log(io.StringIO):
    """Says when something was written."""

    def __init__(self):
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text):
        self.written.set()
        return super().write(text)


class Following:
    """A source at work; `said` gives the routes of each assignment, in turn."""

    def __init__(self, folder):
        self.log = Log()
        self._said = asyncio.Queue()
        self.source = AnnotationFile(folder / "annotations", self._said.put_nowait, Journal(self.log))

    async def said(self):
        assignment = await asyncio.wait_for(self._said.get(), 10)
        return [each.route for each in assignment.routes]

    async def told(self):
        await asyncio.wait_for(self.log.written.wait(), 10)

    def silent(self):
        return self._said.empty()


def following(volume, scene):
    async def run():
        here = Following(volume.folder)
        task = asyncio.create_task(here.source.run())
        try:
            await scene(here)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return here.log.getvalue()

    return asyncio.run(run())


@pytest.fixture
def no_poll(monkeypatch):
    monkeypatch.setattr(downward, "POLL_S", 3600.0)


@pytest.mark.usefixtures("no_poll")
def test_each_change_is_heard_and_the_end_of_it_too(volume):
    async def scene(here):
        assert await here.said() == []
        volume.annotate(assigning("r"))
        assert await here.said() == ["r"]
        volume.annotate(assigning("r", "s"))
        assert await here.said() == ["r", "s"]
        volume.write('other="x"')
        assert await here.said() == []

    assert not following(volume, scene)


@pytest.mark.usefixtures("no_poll")
def test_what_stood_there_before_is_said_first(volume):
    volume.annotate(assigning("r"))

    async def scene(here):
        assert await here.said() == ["r"]

    following(volume, scene)


def test_without_inotify_it_is_looked_for(volume, monkeypatch):
    monkeypatch.setattr(downward, "POLL_S", 0.01)
    monkeypatch.setattr(downward._Listener, "__enter__", lambda _self: None)

    async def scene(here):
        assert await here.said() == []
        volume.annotate(assigning("r"))
        assert await here.said() == ["r"]

    following(volume, scene)


DAMAGED = [
    (f'{ASSIGNMENT}="{{"', "truncated"),
    (f'{ASSIGNMENT}="\\q"', "unknown escape"),
    (f"{ASSIGNMENT}=bare", "not in quotation marks"),
    (b"\xff\xfe", "invalid start byte"),
    (b" " * (FILE_MAX + 1), f"not a file of at most {FILE_MAX} bytes"),
]


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize(("content", "told"), DAMAGED, ids=[told for _, told in DAMAGED])
def test_what_cannot_be_read_is_told_and_changes_nothing(volume, content, told):
    volume.annotate(assigning("r"))

    async def scene(here):
        assert await here.said() == ["r"]
        volume.write(content)
        await here.told()
        assert here.silent()
        volume.annotate(assigning("s"))
        assert await here.said() == ["s"]

    log = following(volume, scene)
    assert told in log
    assert "the previous assignment stays in effect" in log
    assert str(volume.folder / "annotations") in log
    assert log.count("\n") == 1


@pytest.mark.usefixtures("no_poll")
def test_a_file_that_goes_away_takes_nothing_away(volume):
    volume.annotate(assigning("r"))

    async def scene(here):
        assert await here.said() == ["r"]
        (volume.folder / "..data").rename(volume.folder / "..gone")
        (volume.folder / "stir").touch()
        await here.told()
        assert here.silent()

    assert "No such file" in following(volume, scene)


def test_a_file_that_was_never_there_says_how_to_get_it(tmp_path):
    with pytest.raises(EnvironmentMissing, match=r"mount metadata\.annotations there by a downwardAPI volume"):
        AnnotationFile(tmp_path / "annotations", print, Journal(io.StringIO()))


def test_a_pipe_in_its_place_stops_nobody(tmp_path):
    os.mkfifo(tmp_path / "annotations")
    with pytest.raises(EnvironmentMissing, match="not a file"):
        AnnotationFile(tmp_path / "annotations", print, Journal(io.StringIO()))


def test_no_annotations_at_all_is_an_empty_assignment(volume):
    async def scene(here):
        assert await here.said() == []

    assert not following(volume, scene)
