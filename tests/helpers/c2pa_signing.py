"""Sign an image with C2PA, by certificates that are made here and that no trust list holds."""

import datetime
import io
import json
from functools import cache

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM = serialization.Encoding.PEM


def sign(image, media_type, source):
    """Return the bytes of an image with a manifest that names a digital source."""
    action = {"action": "c2pa.created", "digitalSourceType": source}
    manifest = {
        "claim_generator_info": [{"name": "Example Maker", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    signed = io.BytesIO()
    signer = c2pa.Signer.from_info(_signer())
    c2pa.Builder(json.dumps(manifest)).sign(signer, media_type, io.BytesIO(image), signed)
    return signed.getvalue()


@cache
def _signer():
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("root", root_key, None, root_key)
    leaf = _certificate("leaf", key, root.subject, root_key)
    secret = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = leaf.public_bytes(_PEM) + root.public_bytes(_PEM)
    return c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=secret, ta_url=None)


def _certificate(name, key, issuer, issuer_key):
    is_root = issuer is None
    attributes = {NameOID.ORGANIZATION_NAME: "Example Org", NameOID.COMMON_NAME: name}
    subject = x509.Name([x509.NameAttribute(*each) for each in attributes.items()])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(not is_root, *[False] * 4, is_root, is_root, False, False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder(issuer or subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(usage, critical=True)
    )
    if not is_root:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
