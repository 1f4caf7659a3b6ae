"""What `holdfast lab` says to people."""

import lab.cli


def test_tools_that_the_printed_lines_need_and_the_machine_lacks_are_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda tool: None if tool in ("ping", "tcpdump") else f"/usr/bin/{tool}")
    said = lab.cli._missing_tools()
    assert "tcpdump (tcpdump), ping (iputils-ping)" in said
    assert "iproute2" not in said


def test_nothing_is_said_where_nothing_lacks(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda tool: f"/usr/bin/{tool}")
    assert lab.cli._missing_tools() == ""
