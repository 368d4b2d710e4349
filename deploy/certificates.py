"""Make a certificate authority, a certificate for 127.0.0.1 and SuperNode keys, for trying TLS locally.

    python deploy/certificates.py --nodes 4        # into deploy/keys/, which git ignores

For a real deployment let your own authority sign the certificate, and keep each private key where it is used.
"""

import argparse
import datetime
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 30
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_WRITTEN = re.compile(r"ca\.crt|superlink\.(crt|key)|node-\d+(\.pub)?")


@dataclass(frozen=True)
class Keys:
    """Files of a deployment's keys.

    Attributes:
        ca: certificate of the authority, which everybody trusts.
        certificate: the SuperLink's.
        key: the SuperLink's private key.
        nodes: a private key for each SuperNode; its public key is beside it, with the suffix .pub.
    """

    ca: Path
    certificate: Path
    key: Path
    nodes: tuple[Path, ...]


def make_keys(folder: Path, nodes: int) -> Keys:
    """Write new keys and certificates into a folder, readable by nobody else.

    Args:
        folder: is made if it is not there; the keys that were in it, of however many nodes, are removed.
        nodes: number of SuperNodes, at least 1.

    Raises:
        ValueError: too few nodes, or a link where the folder or a key should be.
    """
    if nodes < 1:
        raise ValueError(f"nodes must be at least 1, got {nodes}")
    folder = Path(os.path.abspath(folder))
    _make_private(folder)
    keys = Keys(
        folder / "ca.crt",
        folder / "superlink.crt",
        folder / "superlink.key",
        tuple(folder / f"node-{i}" for i in range(nodes)),
    )
    ca_key, server_key = _new_key(), _new_key()
    ca = _certificate("byzflower local CA", ca_key, None, ca_key)
    server = _certificate("localhost", server_key, ca, ca_key)
    _write(keys.ca, ca.public_bytes(serialization.Encoding.PEM))
    _write(keys.certificate, server.public_bytes(serialization.Encoding.PEM))
    _write(keys.key, _private(server_key, serialization.PrivateFormat.PKCS8))
    for path in keys.nodes:
        key = _new_key()
        _write(path, _private(key, serialization.PrivateFormat.OpenSSH))
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        _write(path.with_name(path.name + ".pub"), public + b"\n")
    return keys


def at_least_one(text: str) -> int:
    """A number of nodes on a command line.

    Raises:
        ArgumentTypeError: not a number, or not a positive one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _make_private(folder: Path) -> None:
    """Make a folder, or empty it of earlier keys, and keep others out of it."""
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link: keys are not written through links")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)  # it may have been there
    earlier = [path for path in folder.iterdir() if _WRITTEN.fullmatch(path.name)]
    if links := [path for path in earlier if path.is_symlink()]:
        raise ValueError(f"{links[0]} is a link: keys are not written through links")
    for path in earlier:
        path.unlink()


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate of an authority (no issuer), or of a server on this machine."""
    is_authority = issuer is None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usages = dict.fromkeys(_USAGES, False)
    usages |= {"key_cert_sign": True, "crl_sign": True} if is_authority else {"digital_signature": True}
    signer = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
    )
    if not is_authority:
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
        serves = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(serves, critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """Write a new file, readable by nobody else; fails if there is one, or a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def main() -> None:
    """Write the keys."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=at_least_one, default=4, help="number of SuperNodes")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "keys")
    arguments = parser.parse_args()
    try:
        keys = make_keys(arguments.folder, arguments.nodes)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"keys of a SuperLink and {len(keys.nodes)} SuperNodes in {keys.ca.parent}")


if __name__ == "__main__":
    main()
