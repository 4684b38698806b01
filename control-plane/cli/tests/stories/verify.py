"""Verifies a token with PyJWT and jwcrypto: by the published set of keys, its issuer and its audience."""

import json
import sys

import jwt
from jwcrypto import jwk
from jwcrypto import jwt as jose

published, token, issuer, audience = sys.argv[1:]
keys = json.loads(published)["keys"]
key = next(k for k in keys if k["kid"] == jwt.get_unverified_header(token)["kid"])
needed = {"require": ["iss", "aud", "sub", "exp", "iat", "jti"]}


def with_pyjwt(key, token, issuer, audience):
    return jwt.decode(token, jwt.PyJWK(key).key, algorithms=["ES256"], issuer=issuer, audience=audience, options=needed)


def with_jwcrypto(token):
    verified = jose.JWT(jwt=token, key=jwk.JWKSet.from_json(published), algs=["ES256"], check_claims={"iss": issuer, "aud": audience})
    return json.loads(verified.claims)


def refused(*case):
    try:
        with_pyjwt(*case)
    except jwt.PyJWTError:
        return 1
    return 0


other = json.loads(jwk.JWK.generate(kty="EC", crv="P-256").export_public())
head, body, signature = token.split(".")
turned = ".".join([head, body, ("B" if signature[0] == "A" else "A") + signature[1:]])
print(
    json.dumps(
        {
            "pyjwt": with_pyjwt(key, token, issuer, audience),
            "jwcrypto": with_jwcrypto(token),
            "refused": refused(key, token, issuer, "shop/cart")
            + refused(key, token, "spiffe://other", audience)
            + refused(other, token, issuer, audience)
            + refused(key, turned, issuer, audience),
        }
    )
)
