"""Issues tokens with PyJWT and jwcrypto, and prints them with their public keys."""

import json
import sys
import time

import jwt
from jwcrypto import jwk
from jwcrypto import jwt as jose

now = int(time.time())
claims = {"iss": sys.argv[1], "aud": sys.argv[2], "sub": "ada", "jti": "r-1", "iat": now, "nbf": now, "exp": now + 600}
kinds = {
    "RS256": {"kty": "RSA", "size": 2048},
    "RS384": {"kty": "RSA", "size": 3072},
    "RS512": {"kty": "RSA", "size": 2048},
    "PS256": {"kty": "RSA", "size": 2048},
    "PS384": {"kty": "RSA", "size": 2048},
    "PS512": {"kty": "RSA", "size": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}
out = []
for alg, kind in kinds.items():
    key = jwk.JWK.generate(kid=alg, use="sig", **kind)
    pem = key.export_to_pem(private_key=True, password=None)
    token = jose.JWT(header={"alg": alg, "kid": alg, "typ": "JWT"}, claims=claims)
    token.make_signed_token(key)
    out.append(
        {
            "alg": alg,
            "key": json.loads(key.export_public()),
            "jwcrypto": token.serialize(),
            "pyjwt": jwt.encode(claims, pem, algorithm=alg, headers={"kid": alg}),
        }
    )
print(json.dumps(out))
