"""A throw-away issuer of tokens (ECDSA P-256), made with openssl, and one token of its own that is good for a day."""
import base64
import json
import subprocess
import time
from pathlib import Path

ISSUER = "https://login.bench.local"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ensure(d: Path):
    """The JWKS of the issuer, as text; its key is made in `d` once."""
    d.mkdir(parents=True, exist_ok=True)
    key = d / "issuer.key"
    if not key.exists():
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)], check=True)
    der = subprocess.run(["openssl", "ec", "-in", str(key), "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    x, y = der[-64:-32], der[-32:]
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "bench", "alg": "ES256", "use": "sig", "x": b64(x), "y": b64(y)}]})


def make(d: Path):
    """A token of the usual size."""
    ensure(d)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "bench", "sub": "user-4711", "jti": "6f1c2d3e", "iat": now - 5, "exp": now + 80_000,
              "scope": "read write", "roles": ["customer", "beta"], "email": "somebody@example.com"}
    signed = b64(json.dumps({"alg": "ES256", "kid": "bench", "typ": "JWT"}).encode()) + "." + b64(json.dumps(claims).encode())
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(d / "issuer.key")], input=signed.encode(), check=True,
                         capture_output=True).stdout
    return signed + "." + b64(raw(der))


def raw(der):
    """The two numbers of an ECDSA signature, 32 bytes each, out of their DER."""
    at, numbers = 2, b""
    for _ in range(2):
        length = der[at + 1]
        numbers += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + length
    return numbers
