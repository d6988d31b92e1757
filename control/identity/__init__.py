"""Who sent this: tokens of issuers that somebody else operates, checked here and turned into principals.

A token is a JWT (RFC 7519) that an OpenID Connect issuer signed. `issuers` reads which issuers are believed, for which
tenant, and what their claims mean; `key_set` keeps their public keys, from a file or from where the issuer publishes
them; `bearer` checks a token and makes the principal. API keys are our own and live in `core.api_key` and in the store.

Signatures are asymmetric or refused: whoever can check a token here must not be able to make one. The algorithm is
taken from the allow-list, never from the token alone, and has to fit the key's own type, so that no public key is ever
used as a shared secret. Issuer, audience and expiry are always required.

Authoritative are the issuer for who somebody is and which roles they have, the issuers' file for what an issuer may
say, policy for what a role may do. When an issuer dies, its keys are used for `KEEP_S` more and then nobody it vouches
for gets in; others do. A token cannot be withdrawn before it expires: for that, let the issuer make short ones.

PyJWT checks signatures and claims; its own JWKS client was not taken, since it blocks, and asks the issuer again for
each unknown key id, which anybody can send as often as they like.
"""
