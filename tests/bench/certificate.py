"""A throw-away certificate for 127.0.0.1, and a bundle that trusts it beside everybody whom one trusts by default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM. `trusting` is the environment in which clients accept the certificate."""

    certificate: Path
    key: Path
    bundle: Path

    @property
    def trusting(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.bundle), "REQUESTS_CA_BUNDLE": str(self.bundle)}


def make_certificate(folder: Path) -> Certificate | None:
    """None where `cryptography` or `certifi` is not installed."""
    try:
        import certifi
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "otabrake bench")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "certificate.pem", folder / "key.pem", folder / "bundle.pem")
    pem = signed.public_bytes(serialization.Encoding.PEM)
    made.certificate.write_bytes(pem)
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.bundle.write_bytes(Path(certifi.where()).read_bytes() + pem)
    return made
