use proptest::prelude::*;

use super::*;

const GOOD: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata:
  name: cart
  namespace: shop
  labels: {team: checkout}
spec:
  hostnames: [basket.shop]
  ports:
    - {port: 80, protocol: http}
    - port: 9090
      protocol: grpc
  identities: [cart, 'spiffe://mesh.local/ns/shop/sa/cart-batch']
  mtls: permissive
  between: http2
  timeouts: {request: 2s, perTry: 500ms}
  retry: {retries: 1, idempotent: true, budgetPercent: 10}
  owner: checkout
  links: [{title: handbook, url: 'https://example.org/cart'}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: prices.canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: prices}]
  rules:
    - matches:
        - path: {type: Exact, value: /v1/price}
          method: GET
          headers: [{name: x-user, value: '7'}]
          queryParams: [{name: v, value: '2'}]
      timeouts: {request: 1s, backendRequest: 300ms}
      retry: {codes: [500], attempts: 2, backoff: 10ms}
      sessionPersistence: {sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}
      filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}], remove: [z]}}
        - {type: URLRewrite, urlRewrite: {hostname: a.b, path: {type: ReplaceFullPath, replaceFullPath: ''}}}
        - {type: RequestMirror, requestMirror: {backendRef: {name: cart, port: 80}, fraction: {numerator: 1}}}
        - {type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308}}
        - {type: CORS, cors: {allowOrigins: ['http://*'], allowMethods: [PUT], maxAge: 9}}
      backendRefs:
        - {kind: Service, name: prices, port: 80}
        - {group: outrigger.dev, kind: ServiceVersion, name: prices.v2, weight: 9}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: prices-1, namespace: shop}
spec: {service: prices, address: 127.0.0.1, ports: [{port: 80, listen: 8080}], version: v2, weight: 50}
";

fn problems(text: &str) -> Vec<(u32, String, Code)> {
    let found = read(text, "test.yaml").unwrap_err();
    found.into_iter().map(|p| (p.line.unwrap(), p.pointer, p.code)).collect()
}

#[test]
fn every_kind_reads_and_reads_back_from_its_own_json() {
    let documents = read(GOOD, "good.yaml").unwrap();
    assert_eq!(documents.len(), 3);
    for document in documents {
        let json = document.object.to_json();
        assert_eq!(Object::from_json(json.clone()).unwrap(), document.object);
        assert_eq!(read_one(&json.to_string()).unwrap().object, document.object);
    }
}

#[test]
fn three_mistakes_are_three_problems_with_their_lines_and_hints() {
    let text = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata:
  name: Cart
spec:
  ports:
    - prot: 80
  timeouts:
    request: 2 seconds
";
    let found = read(text, "shop.yaml").unwrap_err();
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 4, "{told:#?}");
    let expected = [
        "shop.yaml:4:3: error: \"Cart\" is not a name: only a-z, 0-9 and '-' are allowed (at /metadata/name)",
        "shop.yaml:7:7: error: unknown field \"prot\" (at /spec/ports/0/prot); did you mean \"port\"?",
        "shop.yaml:7:7: error: the field \"port\" is missing (at /spec/ports/0); add port: a whole number",
        "shop.yaml:9:5: error: \"2 seconds\" is not a duration; write one to four numbers with h, m, s or ms, \
         like 10s or 1m30s (at /spec/timeouts/request)",
    ];
    assert_eq!(told, expected);
}

#[test]
fn unknown_fields_are_found_in_the_envelope_and_in_metadata_too() {
    let text = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadta: {}
metadata:
  name: cart
  label: {a: b}
extra: 1
";
    let expected = [
        (3, "/metadta".to_owned(), Code::UnknownField),
        (6, "/metadata/label".to_owned(), Code::UnknownField),
        (7, "/extra".to_owned(), Code::UnknownField),
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn mistakes_of_all_documents_are_told_at_once() {
    let text = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshServise\nmetadata: {name: a}\n---\n\
                apiVersion: outrigger.dev/v1\nkind: Instance\nmetadata: {name: a}\n---\n- 1\n";
    let found = problems(text);
    assert_eq!(found[0], (2, "/kind".to_owned(), Code::UnknownKind));
    assert_eq!(found[1], (5, "/apiVersion".to_owned(), Code::UnknownKind));
    assert_eq!(found[2], (5, String::new(), Code::MissingField));
    assert_eq!(found[3], (9, String::new(), Code::WrongType));
}

#[test]
fn what_is_real_but_not_supported_yet_is_refused_and_says_so() {
    let text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  useDefaultGateways: All
  parentRefs: [{kind: Gateway, name: edge}]
  rules:
    - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]
      backendRefs: [{name: a, filters: [{type: ExternalAuth}]}]
      timeouts: {request: 2 seconds}
";
    let found = problems(text);
    let unsupported = found.iter().filter(|(_, _, code)| *code == Code::Unsupported).count();
    assert_eq!(unsupported, 4, "{found:#?}");
    assert!(found.contains(&(10, "/spec/rules/0/timeouts/request".to_owned(), Code::BadValue)), "{found:#?}");
}

#[test]
fn a_number_where_text_belongs_says_to_quote_it() {
    let text = GOOD.replace("version: v2", "version: 2");
    let found = read(&text, "a.yaml").unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].hint.as_deref(), Some("write it in quotes: \"2\""));
}

#[test]
fn the_same_object_twice_is_a_mistake() {
    let one = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {name: cart}\n";
    let found = problems(&format!("{one}---\n{one}"));
    assert_eq!(found, [(7, "/metadata/name".to_owned(), Code::Duplicate)]);
}

#[test]
fn a_body_is_held_to_json_and_its_items_keep_their_numbers() {
    assert_eq!(read_one("kind: MeshService").unwrap_err()[0].code, Code::Syntax);
    assert_eq!(read_items("{\"items\": 1}").unwrap_err()[0].pointer, "/items");
    let body = "{\"items\": [\n {\"apiVersion\": \"outrigger.dev/v1alpha1\", \"kind\": \"MeshService\",\n  \
                \"metadata\": {\"name\": \"cart\"}, \"spec\": {\"port\": []}}]}";
    let found = read_items(body).unwrap_err();
    assert_eq!((found[0].pointer.as_str(), found[0].line), ("/items/0/spec/port", Some(3)));
    assert!(read_items("{\"items\": []}").unwrap().is_empty());
}

#[test]
fn many_problems_are_cut_off_with_a_count() {
    let fields = (0..500).map(|i| format!("x{i}: 1")).collect::<Vec<_>>().join("\n");
    let found = read(&fields, "a").unwrap_err();
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
}

/// Lines that are often nearly right, so that arbitrary texts reach deep.
fn any_line() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = GOOD.lines().collect();
    prop_oneof![
        8 => proptest::sample::select(lines).prop_map(str::to_owned),
        1 => "\\PC{0,30}",
        1 => "[ \\-\\[\\]{}:,&*!|>'\"%@`#a-c0-9\n\t]{0,30}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic_and_every_problem_has_a_place(
        lines in proptest::collection::vec(any_line(), 0..30)
    ) {
        let text = lines.join("\n");
        if let Err(problems) = read(&text, "any.yaml") {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|p| p.line.is_some() || p.code == Code::TooLarge));
        }
        let _ = read_one(&text);
        let _ = read_items(&text);
    }

    #[test]
    fn any_characters_at_all_are_read_or_refused(text in any::<String>()) {
        let _ = read(&text, "any");
    }

    #[test]
    fn whatever_reads_reads_back_the_same(drop in 0_usize..60, double in 0_usize..60) {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        if double < lines.len() { lines.insert(double, lines[double]); }
        if drop < lines.len() { lines.remove(drop); }
        if let Ok(documents) = read(&lines.join("\n"), "any") {
            for document in documents {
                prop_assert_eq!(Object::from_json(document.object.to_json()), Ok(document.object));
            }
        }
    }
}

/// What docs/resilience.md shows as written is read as it stands there: whole objects, and parts of a policy.
#[test]
fn every_example_of_the_page_on_resilience_can_be_written() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/resilience.md")).unwrap();
    let (mut examples, mut block, mut fenced) = (Vec::new(), String::new(), false);
    for line in page.lines().chain([""]) {
        let indented = line.strip_prefix("    ").filter(|_| !fenced);
        match (fenced, line.starts_with("```")) {
            (false, true) => fenced = true,
            (true, false) => block.extend([line, "\n"]),
            (false, false) if indented.is_some() => block.extend([indented.unwrap(), "\n"]),
            _ => {
                fenced = fenced && !line.starts_with("```");
                examples.push(std::mem::take(&mut block));
            }
        }
    }
    let settings =
        ["timeouts:", "retry:", "balance:", "connections:", "rateLimits:", "healthCheck:", "bulkhead:"];
    let mut read_so_far = 0;
    for example in examples {
        let text = if example.starts_with("apiVersion:") {
            example
        } else if settings.iter().any(|s| example.starts_with(s)) {
            let spec = format!("  {}\n", example.trim_end().replace('\n', "\n  "));
            let head = "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: x, namespace: shop}\n\
                spec:\n  targetRef: {group: outrigger.dev, kind: MeshService, name: x}\n";
            format!("{head}{spec}")
        } else {
            continue;
        };
        if let Err(problems) = read(&text, "resilience.md") {
            panic!("{problems:#?}\n{text}");
        }
        read_so_far += 1;
    }
    assert!(read_so_far >= 12, "only {read_so_far} examples were found");
}
