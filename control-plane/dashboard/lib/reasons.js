// What each reason of a refusal means, and what to do: docs/refusals.md in a line each. A test holds the two together.

const REASONS = {
  no_route: ["the service has routes and none matches, or it has no such port", "look at its routes"],
  unknown_service: ["no service of the mesh answers to that host", "check the name"],
  no_endpoint: ["the service has no instance that takes requests", "is it running, and is its sidecar ready?"],
  breaker_open: ["a circuit breaker is open: too much failed, or an operator opened it", "see Breakers; then why its requests fail"],
  draining: ["a sidecar was about to end", "callers retry elsewhere by themselves"],
  discovery_unavailable: ["a sidecar was never told of the service, and the control plane could not be reached", "is the control plane reachable from there?"],
  connect_failed: ["no connection to the instance", "is the address right, is the process there?"],
  tls_failed: ["the handshake failed: another identity, another mesh, an expired certificate", "the sidecars' logs name both sides"],
  upstream_reset: ["the connection ended in the middle of an exchange", "read the application's log"],
  timeout_request: ["the timeout of the request ran out, all attempts included", "raise timeouts.request, or make the service faster"],
  timeout_try: ["the last attempt took longer than one may", "raise timeouts.perTry, or make the service faster"],
  timeout_idle: ["nothing moved for the idle timeout", "raise timeouts.idle"],
  deadline: ["the caller's own deadline ran out", "the caller allowed less time than the service needs"],
  bulkhead_full: ["a limit of concurrency or connections was reached", "more instances, or a higher limit"],
  rate_limited: ["the service takes no more requests of that kind for now", "callers come back after Retry-After"],
  unresolved_backend: ["the route leads to a backend that is not there or not permitted", "the route's state says which"],
  fault_injected: ["a fault filter of the route put it in on purpose", "take the filter away"],
  retry_budget: ["a retry was due, and the budget is used up", "too much fails: look at why"],
  peer_unauthenticated: ["a plaintext caller where a proven identity is needed", "give the caller a sidecar"],
  authn_missing: ["the service wants a user's token, and there was none", "send Authorization: Bearer"],
  jwt_invalid: ["a token that is not good: signature, issuer, audience, form, revoked", "the answer's detail says which"],
  jwt_expired: ["the token's time is over", "get a new one"],
  jwt_keys_unavailable: ["the keys of the token's issuer were never obtained", "can the control plane reach the issuer?"],
  token_exchange_unavailable: ["no narrowed token could be obtained for the call", "bring the control plane back"],
  authz_denied: ["an access policy refuses the request, or none allows it", "Explain tells which and why"],
  bad_request: ["the request has no single safe reading", "the answer's detail says what"],
  header_too_large: ["a head that is too large", ""],
  payload_too_large: ["a body that is too large", "see http.maxBody"],
  uri_too_long: ["a target that is too long", ""],
  egress_denied: ["the place is outside the mesh and not registered", "add an EgressService"],
  upgrade_denied: ["a tunnel or an upgrade that the service does not allow", "list it under http.upgrades"],
  overloaded: ["a proxy is short of memory or file descriptors", "raise its limit"],
  expectation_failed: ["the request expects something other than 100-continue", "leave out the Expect"],
  misdirected: ["the connection to the gateway was made for another host", "clients make one of its own"],
  loop_detected: ["the request would come back to the same sidecar", "an upstream's address is the sidecar's own"],
};

/** `{ means, hint }` of a reason; empty for one that is not known here. */
export function reason(name) {
  const [means = "", hint = ""] = REASONS[name] ?? [];
  return { means, hint };
}
