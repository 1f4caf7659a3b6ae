"""Which news of interfaces are to be announced: one named row per rule."""

import pytest

from sidecar.kernel.whereabouts import LinkNews, Whereabouts

MAC, OTHER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
ALL = (MAC, 7, None, None, None)
WAS = LinkNews(3, up=True, stored=ALL)


@pytest.mark.parametrize(
    ("name", "news", "moved"),
    [
        ("nothing has changed", [WAS], False),
        ("it went down", [LinkNews(3, up=False, stored=ALL)], False),
        ("it went down and came back", [LinkNews(3, up=False, stored=ALL), WAS], True),
        ("another MAC address", [LinkNews(3, up=True, stored=(OTHER_MAC, 7, None, None, None))], True),
        ("the link below", [LinkNews(3, up=True, stored=(MAC, 8, None, None, None))], True),
        ("that link's namespace", [LinkNews(3, up=True, stored=(MAC, 7, 1, None, None))], True),
        ("another port", [LinkNews(3, up=True, stored=(MAC, 7, None, b"p", None))], True),
        ("another master", [LinkNews(3, up=True, stored=(MAC, 7, None, None, 9))], True),
        ("the kernel asks for it", [LinkNews(3, up=True, stored=ALL, asked=True)], True),
        ("it is asked for while nothing carries", [LinkNews(3, up=False, stored=ALL, asked=True)], False),
        ("another MAC address while down", [LinkNews(3, up=False, stored=(OTHER_MAC, 7, None, None, None))], False),
        ("a new one that is up", [LinkNews(4, up=True, stored=ALL)], True),
        ("a new one that is down", [LinkNews(4, up=False, stored=ALL)], False),
    ],
)
def test_what_is_announced(name, news, moved):
    known = Whereabouts()
    assert known.moved([WAS])
    assert known.moved(news) is moved, name
    assert known.moved(news[-1:]) is (news[-1].asked and news[-1].up), "once, unless it is asked for again"


def test_all_news_are_taken_in():
    known = Whereabouts()
    assert known.moved([WAS, LinkNews(4, up=True, stored=ALL)])
    assert not known.moved([LinkNews(4, up=True, stored=ALL), WAS])
