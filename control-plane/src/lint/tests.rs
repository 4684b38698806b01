use super::*;
use crate::spec::read;

const SHOP: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
";

fn route(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: cart}}]\n  rules:\n{rules}"
    )
}

fn policy(name: &str, action: &str, from: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{{group: outrigger.dev, kind: MeshService, name: cart}}], action: {action}, rules: [{{from: [{from}], ports: [80]}}]}}\n"
    )
}

fn found(text: &str) -> Vec<(u32, Code)> {
    let documents = read(text, "mesh.yaml").unwrap_or_else(|p| panic!("{p:?}"));
    let problems = lint(&documents, &"mesh.local".parse().unwrap());
    problems.into_iter().map(|p| (p.line.unwrap_or(0), p.code)).collect()
}

#[test]
fn a_mesh_without_mistakes_has_nothing_said_of_it() {
    let rules = "    - matches: [{path: {type: PathPrefix, value: /a}}]\n      backendRefs: [{group: \"\", kind: Service, name: cart, weight: 1}]\n";
    assert_eq!(found(&format!("{SHOP}{}", route("a", rules))), []);
}

#[test]
fn a_rule_that_a_wider_one_of_the_same_rank_takes_is_told_with_its_place() {
    let rules = "    - matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: x-user, type: RegularExpression, value: '.*'}]}]\n      backendRefs: [{group: \"\", kind: Service, name: cart}]\n    \
                 - matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: x-user, value: ada}]}]\n      backendRefs: [{group: \"\", kind: Service, name: cart}]\n";
    assert_eq!(found(&format!("{SHOP}{}", route("a", rules))), [(14, Code::Unreachable)]);
}

#[test]
fn what_can_not_hold_is_told_and_nothing_else() {
    let problems = found(&format!(
        "{SHOP}{}",
        route("a", "    - backendRefs: [{group: \"\", kind: Service, name: card}]\n")
    ));
    assert_eq!(problems.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [Code::Reference]);
}

#[test]
fn an_allow_rule_that_a_deny_rule_undoes_is_told() {
    let text = format!(
        "{SHOP}{}{}",
        policy("let-web", "allow", "{serviceAccount: shop/web}"),
        policy("nobody", "deny", "{namespace: shop}"),
    );
    let all = found(&text);
    assert!(all.iter().any(|(_, code)| *code == Code::Contradiction), "{all:?}");
}
