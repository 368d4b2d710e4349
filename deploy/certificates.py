"""Make a certificate authority, a certificate for 127.0.0.1 and SuperNode keys, for trying TLS locally.

    python deploy/certificates.py --nodes 4        # into deploy/keys/, which git ignores

For a real deployment let your own authority sign the certificate, and keep each private key where it is used.
"""

import argparse
import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 30


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
        folder: is made if it is not there; what was in it is replaced.
        nodes: number of SuperNodes.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = Keys(
        folder / "ca.crt",
        folder / "superlink.crt",
        folder / "superlink.key",
        tuple(folder / f"node-{i}" for i in range(nodes)),
    )
    ca_key, server_key = _new_key(), _new_key()
    ca = _certificate("byzflower local CA", ca_key, None, ca_key)
    server = _certificate("localhost", server_key, ca, ca_key)
    keys.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    keys.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    _write_private(keys.key, server_key, serialization.PrivateFormat.PKCS8)
    for path in keys.nodes:
        key = _new_key()
        _write_private(path, key, serialization.PrivateFormat.OpenSSH)
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        path.with_name(path.name + ".pub").write_bytes(public + b"\n")
    return keys


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate of an authority (no issuer), or of a server on this machine."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    path.unlink(missing_ok=True)
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def main() -> None:
    """Write the keys."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=4, help="number of SuperNodes")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "keys")
    arguments = parser.parse_args()
    keys = make_keys(arguments.folder, arguments.nodes)
    print(f"keys of a SuperLink and {len(keys.nodes)} SuperNodes in {keys.ca.parent}")


if __name__ == "__main__":
    main()
