"""The webhook's certificates: a certificate authority of its own, and what it signs; made, judged, renewed.

Pure: the time of day is passed in. The authority lives for ten years and signs a serving certificate of 90 days; each
is renewed at two thirds of its life. A new authority is trusted beside the old one (`ca.crt` then has both) until the
old one has expired, and the serving certificate that the old one signed stays: so nobody who trusts `ca.crt` is ever
without a certificate that fits. Only what is damaged is replaced at once.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

CA_CERT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
CERT: Final = "tls.crt"
KEY: Final = "tls.key"
"""The Secret's keys: those of type kubernetes.io/tls, and the authority's own key beside them."""

CA_LIFE: Final = dt.timedelta(days=3650)
LIFE: Final = dt.timedelta(days=90)
_EARLIER: Final = dt.timedelta(minutes=5)
"""A certificate is valid from a little before it is made: clocks differ."""
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)

Data = dict[str, bytes]


def mended(found: Mapping[str, bytes], names: Sequence[str], now: dt.datetime) -> tuple[Data, str]:
    """Decide what the Secret should hold.

    Args:
        found: what it holds, all PEM.
        names: the DNS names that the serving certificate must have.
        now: the time of day.

    Returns:
        What it should hold, and why; ``""``: it is right as it is.
    """
    why = _authority_problem(found, now)
    if why:
        return self_signed(names, now), why
    data = {key: found[key] for key in (CA_CERT, CA_KEY)}
    newest, *_ = trusted = x509.load_pem_x509_certificates(found[CA_CERT])
    if now >= renewal(newest):
        fresh = _authority(now)
        alive = [each for each in trusted if now < each.not_valid_after_utc]
        data = {**fresh, CA_CERT: fresh[CA_CERT] + b"".join(_pem(each) for each in alive)}
        why = f"{CA_CERT}: two thirds of the life of the certificate authority are over"
    kept = {key: found.get(key, b"") for key in (CERT, KEY)}
    wrong = problem({**data, **kept}, names, now)
    if not wrong and now >= renewal(x509.load_pem_x509_certificate(kept[CERT])):
        wrong = f"{CERT}: two thirds of its life are over"
    if wrong:
        kept = _serving(data, names, now)
    return {**data, **kept}, wrong or why


def renewal(certificate: x509.Certificate) -> dt.datetime:
    """When a certificate is to be renewed: at two thirds of its life."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def next_renewal(data: Mapping[str, bytes]) -> dt.datetime:
    """When the first of a Secret's certificates is to be renewed; the Secret is one that is right."""
    own = x509.load_pem_x509_certificate(data[CERT])
    newest = x509.load_pem_x509_certificates(data[CA_CERT])[0]
    return min(renewal(own), renewal(newest))


def problem(data: Mapping[str, bytes], names: Sequence[str], now: dt.datetime) -> str:
    """Say what is wrong with a serving certificate; ``""``: it can be used, and who trusts `ca.crt` will trust it."""
    why = _pair_problem(data, CERT, KEY)
    if why:
        return why
    certificate = x509.load_pem_x509_certificate(data[CERT])
    why = _date_problem(certificate, CERT, now)
    if why:
        return why
    try:
        # each that is not expired: what is only trusted no more does no harm
        trusted = [each for each in x509.load_pem_x509_certificates(data.get(CA_CERT, b"")) if _valid(each, now)]
        builder = PolicyBuilder().store(Store(trusted)).time(now)
        for name in names:
            # what stands between it and an authority of others comes after it in the same file
            chain = x509.load_pem_x509_certificates(data[CERT])[1:]
            builder.build_server_verifier(x509.DNSName(name)).verify(certificate, chain)
    except (*_UNREADABLE, VerificationError) as error:
        return f"{CERT} is not one that {CA_CERT} vouches for as {', '.join(names)}: {error}"
    return ""


def unusable(data: Mapping[str, bytes]) -> str:
    """Say why nobody could serve with a certificate and its key; ``""``: one can, whoever may trust it."""
    return _pair_problem(data, CERT, KEY)


def self_signed(names: Sequence[str], now: dt.datetime) -> Data:
    """Make an authority and what it signs: to be trusted, or to be shown while there is none that anybody trusts."""
    data = _authority(now)
    return {**data, **_serving(data, names, now)}


# judging -------------------------------------------------------------------------------------------------------


def _authority_problem(data: Mapping[str, bytes], now: dt.datetime) -> str:
    if not any(data.get(key) for key in (CA_CERT, CA_KEY, CERT, KEY)):
        return "there is none yet"
    why = _pair_problem(data, CA_CERT, CA_KEY)
    if why:
        return why
    newest = x509.load_pem_x509_certificates(data[CA_CERT])[0]
    if not _is_ours(newest, data[CA_KEY]):
        return f"{CA_CERT} is not an authority that was made here"
    return _date_problem(newest, CA_CERT, now)


def _is_ours(certificate: x509.Certificate, key: bytes) -> bool:
    """Whether it is an authority as they are made here, so that it can sign as is done here."""
    try:
        signs = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False
    return signs and isinstance(load_pem_private_key(key, None), ec.EllipticCurvePrivateKey)


def _pair_problem(data: Mapping[str, bytes], cert: str, key: str) -> str:
    for name in (cert, key):
        if not data.get(name):
            return f"{name} is missing"
    try:
        # all of them: a file of which only the first can be read is damaged
        certificate = x509.load_pem_x509_certificates(data[cert])[0]
        own = certificate.public_key()
    except _UNREADABLE as error:
        return f"{cert} cannot be read: {error}"
    try:
        public = load_pem_private_key(data[key], None).public_key()
    except _UNREADABLE as error:
        return f"{key} cannot be read: {error}"
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return "" if own.public_bytes(*form) == public.public_bytes(*form) else f"{key} is not the key of {cert}"


def _date_problem(certificate: x509.Certificate, name: str, now: dt.datetime) -> str:
    if now >= certificate.not_valid_after_utc:
        return f"{name} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now < certificate.not_valid_before_utc:
        return (
            f"{name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}: check this node's clock"
        )
    return ""


def _valid(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


# making --------------------------------------------------------------------------------------------------------


def _authority(now: dt.datetime) -> Data:
    key = ec.generate_private_key(ec.SECP256R1())
    # two authorities that are trusted at one time must be told apart
    name = _name(f"holdfast-webhook-ca {now:%Y-%m-%dT%H:%M:%SZ}")
    made = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {CA_CERT: _pem(made), CA_KEY: _key_pem(key)}


def _serving(authority: Mapping[str, bytes], names: Sequence[str], now: dt.datetime) -> Data:
    signer = x509.load_pem_x509_certificates(authority[CA_CERT])[0]
    signing = load_pem_private_key(authority[CA_KEY], None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)  # noqa: S101 - see _is_ours
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        _builder(_name(names[0]), signer.subject, key.public_key(), now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return {CERT: _pem(made), KEY: _key_pem(key)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificateIssuerPublicKeyTypes, now: dt.datetime, life: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
