"""Certificates of the webhook: what is made fits, what is damaged is replaced, and what is due is renewed in time."""

import datetime as dt

import pytest
from cryptography import x509

from controller.injection.certificate import (
    CA_CERT,
    CA_KEY,
    CA_LIFE,
    CERT,
    KEY,
    LIFE,
    mended,
    next_renewal,
    problem,
    self_signed,
)

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
NAMES = ("holdfast-webhook.holdfast-system.svc", "holdfast-webhook.holdfast-system.svc.cluster.local")
DAY = dt.timedelta(days=1)
MADE = self_signed(NAMES, NOW)
ANOTHER = self_signed(NAMES, NOW)
OTHER_NAMES = self_signed(("webhook.default.svc",), NOW)


def certificates(data, key):
    return x509.load_pem_x509_certificates(data[key])


def test_what_is_made_is_right_and_stays_as_it_is():
    data, why = mended({}, NAMES, NOW)
    assert why == "there is none yet"
    assert sorted(data) == sorted((CA_CERT, CA_KEY, CERT, KEY))
    assert problem(data, NAMES, NOW) == ""
    assert mended(data, NAMES, NOW) == (data, "")


def test_each_is_renewed_at_two_thirds_of_its_life():
    begin = certificates(MADE, CERT)[0].not_valid_before_utc
    end = certificates(MADE, CERT)[0].not_valid_after_utc
    due = next_renewal(MADE)
    assert due == begin + (end - begin) * 2 / 3
    assert mended(MADE, NAMES, due - dt.timedelta(seconds=1)) == (MADE, "")
    data, why = mended(MADE, NAMES, due)
    assert why == "tls.crt: two thirds of its life are over"
    assert problem(data, NAMES, due) == ""
    assert (data[CA_CERT], data[CA_KEY]) == (MADE[CA_CERT], MADE[CA_KEY]), "who trusts the authority need learn nothing"
    assert next_renewal(data) > due + LIFE / 2


def test_a_new_authority_is_trusted_beside_the_old_one_and_signs_from_the_next_renewal_on():
    begin = certificates(MADE, CA_CERT)[0].not_valid_before_utc
    data, at = MADE, NOW
    while len(certificates(data, CA_CERT)) == 1:
        at = next_renewal(data)
        before, (data, _) = data, mended(data, NAMES, at)
    assert at == begin + (certificates(MADE, CA_CERT)[0].not_valid_after_utc - begin) * 2 / 3
    assert before[CA_CERT] in data[CA_CERT]
    assert (data[CERT], data[KEY]) == (before[CERT], before[KEY]), "the certificate in use stays"
    assert data[CA_KEY] != before[CA_KEY]
    assert problem(data, NAMES, at) == ""
    at = next_renewal(data)
    data, _ = mended(data, NAMES, at)
    assert certificates(data, CERT)[0].issuer == certificates(data, CA_CERT)[0].subject
    assert problem(data, NAMES, at) == ""
    # the second authority is renewed in its turn; by then the first has expired, and is trusted no more
    second = certificates(data, CA_CERT)[0]
    while certificates(data, CA_CERT)[0] == second:
        at = next_renewal(data)
        data, _ = mended(data, NAMES, at)
    assert at > begin + CA_LIFE
    assert certificates(data, CA_CERT)[1:] == [second]
    assert problem(data, NAMES, at) == ""


LATE = NOW + LIFE + DAY
DAMAGED = [
    pytest.param({**MADE, CERT: b"nonsense"}, NOW, "tls.crt cannot be read", True, id="certificate unreadable"),
    pytest.param({**MADE, CERT: MADE[CERT][:-40]}, NOW, "tls.crt cannot be read", True, id="certificate cut off"),
    pytest.param({**MADE, KEY: b"nonsense"}, NOW, "tls.key cannot be read", True, id="key unreadable"),
    pytest.param({**MADE, KEY: ANOTHER[KEY]}, NOW, "tls.key is not the key of tls.crt", True, id="another's key"),
    pytest.param({k: v for k, v in MADE.items() if k != KEY}, NOW, "tls.key is missing", True, id="no key"),
    pytest.param({**MADE, CERT: b""}, NOW, "tls.crt is missing", True, id="certificate empty"),
    pytest.param(
        {**MADE, CERT: ANOTHER[CERT], KEY: ANOTHER[KEY]}, NOW, "is not one that ca.crt", True, id="stranger's"
    ),
    pytest.param({**OTHER_NAMES}, NOW, "is not one that ca.crt vouches for as holdfast", True, id="other names"),
    pytest.param(MADE, LATE, "tls.crt expired at 2026-04-02T03:04:05Z", True, id="expired"),
    pytest.param(MADE, NOW - DAY, "ca.crt is valid only from", False, id="from the future"),
    pytest.param({**MADE, CA_CERT: b"nonsense"}, NOW, "ca.crt cannot be read", False, id="authority unreadable"),
    pytest.param(
        {**MADE, CA_KEY: ANOTHER[CA_KEY]}, NOW, "ca.key is not the key", False, id="authority's key another's"
    ),
    pytest.param({CERT: MADE[CERT], KEY: MADE[KEY]}, NOW, "ca.crt is missing", False, id="no authority"),
    pytest.param({**MADE, CA_CERT: MADE[CERT], CA_KEY: MADE[KEY]}, NOW, "not an authority", False, id="no authority's"),
    pytest.param(MADE, NOW + CA_LIFE, "ca.crt expired", False, id="authority expired"),
]


@pytest.mark.parametrize(("found", "now", "said", "authority_stays"), DAMAGED)
def test_what_is_wrong_is_named_and_mended(found, now, said, authority_stays):
    data, why = mended(found, NAMES, now)
    assert said in why
    assert problem(data, NAMES, now) == ""
    assert mended(data, NAMES, now) == (data, "")
    assert (data[CA_CERT] == found.get(CA_CERT)) is authority_stays


def test_a_certificate_of_others_is_judged_by_its_names_and_its_own_authority():
    assert problem(OTHER_NAMES, ("webhook.default.svc",), NOW) == ""
    assert "vouches for as webhook.default.svc" in problem(MADE, ("webhook.default.svc",), NOW)
    assert "ca.crt" in problem({CERT: MADE[CERT], KEY: MADE[KEY]}, NAMES, NOW)
